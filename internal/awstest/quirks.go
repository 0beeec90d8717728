package awstest

import "time"

// Quirks are what a [Server] does wrong, and how long what it issues is good.
// The zero value is good servers.
//
// A quirk with a field ...Count beside it happens so many times after
// [Server.SetQuirks] and then no more; 0 means every time. [Server.Happened]
// returns how often it did.
type Quirks struct {
	// OIDCStatus, when not 0, answers requests for ID tokens.
	OIDCStatus      int
	OIDCStatusCount int
	// OIDCCut closes the connection without an answer.
	OIDCCut      bool
	OIDCCutCount int
	// OIDCNoAnswer answers nothing at all, until the client is gone.
	OIDCNoAnswer      bool
	OIDCNoAnswerCount int
	// OIDCRedirectTo, when not empty, answers with a redirect (307) to this URL.
	OIDCRedirectTo string
	// OIDCNotJSON answers with the beginning of the JSON, ID token included.
	OIDCNotJSON bool
	// OIDCHuge answers with JSON of 2 MiB, the ID token last.
	OIDCHuge bool
	// NoValue answers JSON without the ID token.
	NoValue bool
	// MalformedIDToken answers an ID token of two parts instead of three.
	MalformedIDToken bool
	// IDTokenLifetime is how long an ID token is good. Default: 5 min. Each is
	// good for one use in any case.
	IDTokenLifetime time.Duration

	// Role, when not empty, is the ARN of the only role that may be assumed.
	Role string
	// RoleDenied denies every role.
	RoleDenied bool
	// MaxDuration is the longest session that the role allows. Default: 12 h.
	MaxDuration time.Duration
	// STSThrottled answers that the rate is exceeded.
	STSThrottled      bool
	STSThrottledCount int
	// STSStatus, when not 0, answers as a load balancer before STS does: no XML.
	STSStatus      int
	STSStatusCount int
	// STSCut closes the connection without an answer.
	STSCut      bool
	STSCutCount int
	// STSNoAnswer answers nothing at all, until the client is gone.
	STSNoAnswer      bool
	STSNoAnswerCount int
	// InvalidIdentityToken answers that GitHub's keys could not be fetched.
	InvalidIdentityToken      bool
	InvalidIdentityTokenCount int
	// IDPCommunicationError answers that GitHub did not answer in time.
	IDPCommunicationError      bool
	IDPCommunicationErrorCount int
	// ExpiredIDToken answers that the ID token has expired.
	ExpiredIDToken      bool
	ExpiredIDTokenCount int
	// QuoteIDToken answers a ValidationError that quotes the whole ID token, as
	// AWS's validation errors quote values.
	QuoteIDToken bool
	// NoCredentials answers success without credentials.
	NoCredentials bool
	// NoSessionToken answers credentials without the session token.
	NoSessionToken bool
	// CredentialsLifetime is what the credentials of a role state, when not 0,
	// whatever was asked for.
	CredentialsLifetime time.Duration
	// CredentialUses is for how many requests credentials are good, when not 0;
	// [Server.ExpireCredentials] ends all of them at once.
	CredentialUses int

	// ECRThrottled answers that the rate is exceeded. This quirk and the next
	// ones hold for ECR and ECR Public.
	ECRThrottled      bool
	ECRThrottledCount int
	// ECRStatus, when not 0, answers as a load balancer before ECR does: no JSON.
	ECRStatus      int
	ECRStatusCount int
	// ECRNoAnswer answers nothing at all, until the client is gone.
	ECRNoAnswer      bool
	ECRNoAnswerCount int
	// ECRDenied answers that ecr:GetAuthorizationToken is not allowed.
	ECRDenied bool
	// UnrecognizedClient answers that the credentials are not known.
	UnrecognizedClient      bool
	UnrecognizedClientCount int
	// OtherAccount, when not empty, is the account whose registry the answer
	// names, instead of the one that was asked for.
	OtherAccount string
	// MalformedAuthorization answers an authorization token without a user.
	MalformedAuthorization bool
	// NotBase64 answers an authorization token that is not base64.
	NotBase64 bool
	// NoAuthorization answers success without an authorization token.
	NoAuthorization bool
	// NoExpiry leaves out when the authorization token expires.
	NoExpiry bool
	// PasswordLifetime is how long a password is good. Default: 12 h.
	PasswordLifetime time.Duration

	// ClockSkew is how far the clock of STS and ECR is ahead of this machine's;
	// negative when it is behind. ECR refuses signatures that are 5 min off, and
	// all times in answers are by that clock, the Date header included.
	ClockSkew time.Duration
}
