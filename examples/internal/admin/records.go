package admin

// The records are what -json prints, one to a line. The names of their fields are a
// contract: other programs parse them. Times are RFC 3339 in UTC, digests have their
// algorithm, what is not known is "" or 0.

// listed is what list prints for a tarball.
type listed struct {
	Name           string `json:"name"`
	Digest         string `json:"digest"`    // of the manifest
	Reference      string `json:"reference"` // the name that an engine gives it
	Source         string `json:"source"`    // where it was resolved
	Branch         string `json:"branch"`
	Run            int64  `json:"run"`
	RunAttempt     int64  `json:"run_attempt"`
	Bytes          int64  `json:"bytes"`           // of the file
	BytesAllocated int64  `json:"bytes_allocated"` // of the disk
	BytesShared    int64  `json:"bytes_shared"`    // of layers that another tarball has too
	LastUsed       string `json:"last_used"`
	Error          string `json:"error"` // why it cannot be read
}

// verified is what verify prints for a tarball.
type verified struct {
	Name            string   `json:"name"`
	Digest          string   `json:"digest"`
	Outcome         string   `json:"outcome"` // intact, damaged, repaired
	Damaged         []string `json:"damaged"` // digests of layers
	Bytes           int64    `json:"bytes"`
	BytesDownloaded int64    `json:"bytes_downloaded"` // by -repair
	Error           string   `json:"error"`            // "" if intact or repaired
}

// pruned is what prune prints for a tarball or a leftover.
type pruned struct {
	Name     string `json:"name"`
	Kind     string `json:"kind"`   // tarball, partial, journal, retired, mark, lock, wanted, temporary
	Action   string `json:"action"` // removed, kept
	DryRun   bool   `json:"dry_run"`
	Why      string `json:"why"`       // age, count, bytes; leftover
	Kept     string `json:"kept"`      // why it stays all the same: newest, in-use
	Bytes    int64  `json:"bytes"`     // of the disk
	LastUsed string `json:"last_used"` // of a tarball
}

// described is what info prints.
type described struct {
	File       string           `json:"file"`
	Digest     string           `json:"digest"`
	Reference  string           `json:"reference"`
	Source     string           `json:"source"`
	Branch     string           `json:"branch"`
	Run        int64            `json:"run"`
	RunAttempt int64            `json:"run_attempt"`
	Platform   string           `json:"platform"` // OS/ARCH[/VARIANT], of the config
	Created    string           `json:"created"`  // of the config
	Config     string           `json:"config"`   // digest
	Bytes      int64            `json:"bytes"`
	Layers     []describedLayer `json:"layers"` // bottom first, each once
}

// describedLayer is a layer in [described].
type describedLayer struct {
	Digest    string `json:"digest"`
	MediaType string `json:"media_type"`
	Bytes     int64  `json:"bytes"`
	Offset    int64  `json:"offset"` // in the file
}
