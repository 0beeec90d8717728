package enginetest

// Quirks are what an [Engine] does wrong. The zero value is a good engine.
type Quirks struct {
	// OldVersion states a version that is older than any that is known to load an
	// archive without some layers.
	OldVersion bool
	// Driver, when not empty, is the storage driver that it reports.
	Driver string
	// DenyInfo answers GET /info with 403, as an authorization plugin does.
	DenyInfo bool
	// NotAnEngine answers everything with a web page and 200.
	NotAnEngine bool

	// LieAboutLayers lists one more image, which has these diff IDs; none of
	// these layers is there.
	LieAboutLayers []string
	// BrokenInspect answers 500 when that image is asked for, and when it has no
	// layers, as an engine does whose store is damaged.
	BrokenInspect bool

	// RefuseDelta does not load an archive in which a layer is missing, be the
	// layer there or not.
	RefuseDelta bool
	// SilentBroken says nothing of an image that cannot be unpacked. It is only of
	// the containerd store, which keeps such an image.
	SilentBroken bool
	// Incomplete says of every image that blobs of it are missing, as far as the
	// engine says such things: with [Containerd], from version 28 on.
	Incomplete bool
	// NothingUnpacked reports of every image that its unpacked files take no space, as of one
	// whose layers are empty on XFS, or that is not unpacked: with [Containerd], from
	// version 28 on.
	NothingUnpacked bool
	// DiesUnpacking closes the connection when an archive's images have their names, and
	// unpacks nothing: with [Containerd], as an engine that is killed.
	DiesUnpacking bool
	// ContainerdVersion is the version of the containerd that it reports, "" for none.
	ContainerdVersion string
	// WrongImage gives the reference to another image than the archive's.
	WrongImage bool
	// NoName loads an image and gives it no reference.
	NoName bool
	// ErrorInStream, when not empty, is why every load and pull fails, in an answer with
	// status 200.
	ErrorInStream string
	// LoadStatus, when not 0, answers every load, once it was read.
	LoadStatus int
	// StopReadingAfter reads so many bytes of an archive and then answers that the
	// disk is full, when not 0. To a pull it answers that at its end.
	StopReadingAfter int64
	// CutAnswerAfter closes the connection after so many bytes of the answer to a
	// load, when not 0. What was sent is loaded all the same.
	CutAnswerAfter int64
	// NeverAsks makes a pull wait for ever, as an engine does that cannot reach the
	// registry.
	NeverAsks bool
	// PullFails, when not empty, is why every pull fails, in an answer with status 200,
	// when all was fetched.
	PullFails string
	// WhilePulling, when not nil, is called when a pull has the manifest and the
	// config, and no layer yet.
	WhilePulling func() `json:"-"`
	// CreateFails creates no container.
	CreateFails bool
	// NoSpace creates no container, since the disk is full.
	NoSpace bool
	// TagFails gives no image a name, and takes none away.
	TagFails bool

	// PauseAfter reads so many bytes of an archive, sends a value to Paused, and
	// goes on when there is one from Resume, for a test that wants to do something
	// in the middle of a load. Paused nil is no pause.
	PauseAfter int64
	Paused     chan<- struct{} `json:"-"`
	Resume     <-chan struct{} `json:"-"`
	// Before, when not nil, is called before each request is answered. It may not
	// ask the engine anything.
	Before func(Request) `json:"-"`
}
