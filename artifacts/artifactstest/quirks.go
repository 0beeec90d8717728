package artifactstest

// Quirks are what a [Server] does wrong. The zero value is a good server.
//
// A quirk with a field ...Count beside it happens so many times after
// [Server.SetQuirks] and then no more; 0 means every time. [Server.Happened]
// tells how often it did.
type Quirks struct {
	// Token, when not empty, is the only one that is let in; others get 401.
	Token string
	// NoPermission answers 404, as the API does to a token without the
	// permission "actions: read" and for a repository that is not there.
	NoPermission bool
	// MovedTo, when not empty, answers every request with 301 to this URL, as
	// for a repository that was renamed.
	MovedTo string
	// Status, when not 0, answers every request to the API.
	Status      int
	StatusCount int
	// Page, when not empty, is the body of a 200 that answers every request.
	Page string

	// RateLimit, when not 0, is the status of an exhausted rate limit: 403 or
	// 429. Without the other fields it is a limit that says not for how long.
	RateLimit      int
	RateLimitCount int
	// Reset is in how many seconds the limit is over, in the headers of a
	// primary limit, when not 0.
	Reset int
	// RetryAfter is the same in the header of a secondary limit.
	RetryAfter int
	// Now is the server's clock in seconds since 1970, when not 0.
	Now int64

	// PageSize, when not 0, is how many artifacts a page has at most, whatever
	// is asked for.
	PageSize int
	// TooMany is how many artifacts the list claims beyond those that it has.
	TooMany int
	// OtherRun states another run in each artifact of a list.
	OtherRun bool
	// OtherRepository, when not empty, is what runs say that they are of.
	OtherRepository string

	// RedirectTo, when not empty, is where downloads are redirected to.
	RedirectTo string
	// Gone answers downloads with 410.
	Gone bool
	// ExpiredURL gives out URLs of the storage whose minute is over.
	ExpiredURL      bool
	ExpiredURLCount int
	// StorageStatus, when not 0, answers requests to the storage.
	StorageStatus      int
	StorageStatusCount int
	// CutBody closes the connection in the middle of a download.
	CutBody      bool
	CutBodyCount int
	// WrongBytes changes the last byte of a download.
	WrongBytes      bool
	WrongBytesCount int
	// ShortBody sends downloads without their last byte, as if that were all.
	ShortBody bool
	// Download, when not nil, is sent a value before each download, for a test that
	// wants to do something in the middle of one.
	Download chan<- struct{} `json:"-"`
}

// Signature is what URLs of the storage carry, and no log line or error may show.
const Signature = "sig=TOP-SECRET-SIGNATURE"
