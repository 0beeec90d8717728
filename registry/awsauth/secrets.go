package awsauth

import (
	"errors"
	"slices"
	"strings"
	"sync"
)

// secrets are those that were seen so far. Servers quote them: AWS's validation
// errors have the value that did not please, which may be the ID token.
type secrets struct {
	tell func(string) // nil: nobody

	mu   sync.Mutex
	seen []string
}

// add notes secrets, and tells those that are new.
func (s *secrets) add(values ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range values {
		if v == "" || slices.Contains(s.seen, v) {
			continue
		}
		s.seen = append(s.seen, v)
		if s.tell != nil {
			s.tell(v) // under the lock: a second one who has it must not use it before
		}
	}
}

// clean is [clean], and takes secrets out.
func (s *secrets) clean(text string) string {
	s.mu.Lock()
	// The latest first: the base64 of a password is noted after it.
	for _, v := range slices.Backward(s.seen) {
		text = strings.ReplaceAll(text, v, "(not shown)")
	}
	s.mu.Unlock()
	return clean(text)
}

// cleanError returns an error whose text is clean. One that quotes a secret
// loses what it wraps, since that could be asked for its text.
func (s *secrets) cleanError(err error) error {
	text := err.Error()
	if cleaned := s.clean(text); cleaned != text {
		if strings.Contains(cleaned, "(not shown)") {
			return errors.New(cleaned)
		}
		return &cleanedError{cleaned, err}
	}
	return err
}

type cleanedError struct {
	text string
	err  error
}

func (e *cleanedError) Error() string { return e.text }
func (e *cleanedError) Unwrap() error { return e.err }
