package fetch

import (
	"fmt"
	"testing"
)

func TestDbg(t *testing.T) {
	hosts := mirrored(constant(0), constant(link))
	for _, h := range hosts {
		h.log = func(f string, a ...any) { fmt.Printf(f+"\n", a...) }
	}
	o := succeed(t, simulation{connections: 4, layers: []float64{30 * MiB, 10 * MiB}, hosts: hosts})
	t.Log(o)
}
