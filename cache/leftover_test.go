package cache

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestLeftoverOf(t *testing.T) {
	const digest, unique = ".0123456789ab", ".0123456789abcdef"
	for name, want := range map[string]LeftoverKind{
		".x.tar" + digest + unique + ".partial":         PartialLeftover,
		".x.tar" + digest + unique + ".partial.journal": JournalLeftover,
		".x.tar.1700000000" + unique + ".retired":       RetiredLeftover,
		".x.tar.mark":                                MarkLeftover,
		".x.tar.lock":                                LockLeftover,
		".x.tar.lock.wanted":                         WantedLeftover,
		".manifest.json" + unique + ".tmp":           TemporaryLeftover,
		".new\nline.tar.mark":                        MarkLeftover,
		"." + strings.Repeat("n", 196) + ".tar.mark": MarkLeftover,
		"." + strings.Repeat("n", 197) + ".tar.mark": "",
		"x.tar":                                "",
		".x.tar":                               "",
		"x.tar.lock":                           "",
		"x.tar" + digest + unique + ".partial": "",
		".x" + digest + unique + ".partial":    "",
		".x.tar" + unique + ".partial":         "",
		".x.tar" + digest + ".0123456789abcdeg.partial":       "",
		".x.tar" + digest + ".0123456789ABCDEF.partial":       "",
		".x.tar" + digest + unique + ".partial.tar":           "",
		".x.tar.soon" + unique + ".retired":                   "",
		".x.tar.-5" + unique + ".retired":                     "",
		".x.tar.9999999999999999999999" + unique + ".retired": "",
		".x.mark":                        "",
		"..tar.mark":                     "",
		"...tar.lock":                    "",
		".x.tar.wanted":                  "",
		".gitignore.lock":                "",
		unique + ".tmp":                  "",
		".x.tmp":                         "",
		".nfs000000000012345600000001":   "",
		".name_main.tar.1a2b.partial.md": "",
	} {
		kind, tarball := leftoverOf(name)
		assert.Equal(t, want, kind, name)
		if want != "" && want != TemporaryLeftover {
			assert.Regexp(t, `\.tar$`, tarball)
		}
	}
}

// What the package makes is what it finds.
func TestLeftoverFormsAreThoseOfWriters(t *testing.T) {
	name := strings.Repeat("n", maxTarballName-4) + ".tar"
	for kind, made := range map[LeftoverKind]string{
		PartialLeftover:   uniqueName(name+".0123456789ab", partialKind),
		JournalLeftover:   uniqueName(name+".0123456789ab", partialKind) + journalKind,
		MarkLeftover:      "." + name + "." + markKind,
		LockLeftover:      "." + name + "." + lockKind,
		WantedLeftover:    "." + name + "." + lockKind + askKind,
		TemporaryLeftover: uniqueName("any", "tmp"),
	} {
		got, _ := leftoverOf(made)
		assert.Equal(t, kind, got)
	}
}

func TestAgeOf(t *testing.T) {
	now := time.Unix(1000, 0)
	assert.Equal(t, time.Minute, ageOf(now.Add(-time.Minute), now))
	assert.Zero(t, ageOf(now, now))
	assert.Zero(t, ageOf(now.Add(time.Hour), now), "the future is not old")
}
