// Package jsondoc checks that examples/JSON.md describes the records that the example
// programs print with -json.
package jsondoc

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
)

// A T is a [testing.T].
type T interface {
	Helper()
	Errorf(format string, args ...any)
}

// row is a row of a table in the document: a field, its type, and what it is.
var row = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([a-z ]+) \\| (.+) \\|$")

// Check checks that the document, a file, has a table of exactly the fields of a record,
// in their order and with their types, under the heading of a program, and that the
// text there names all values.
func Check(t T, file, program string, record any, values ...string) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Errorf("%v", err)
		return
	}
	_, section, found := strings.Cut(string(raw), "\n## "+program+"\n")
	if !found {
		t.Errorf("%s has no heading %q", file, "## "+program)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var have []string
	for _, r := range row.FindAllStringSubmatch(section, -1) {
		have = append(have, r[1]+" "+r[2])
	}
	if want := fields("", reflect.TypeOf(record)); !reflect.DeepEqual(want, have) {
		t.Errorf("%s, %s: the fields are\n%s\nbut it has\n%s", file, program, strings.Join(want, "\n"), strings.Join(have, "\n"))
	}
	for _, v := range values {
		if !strings.Contains(section, "`"+v+"`") {
			t.Errorf("%s, %s: it does not have the value %q", file, program, v)
		}
	}
}

// fields returns the names and types of a record's fields, as they are in JSON.
func fields(prefix string, t reflect.Type) (all []string) {
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		all = append(all, prefix+name+" "+typeOf(f.Type))
		if f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct {
			all = append(all, fields(prefix+name+"[].", f.Type.Elem())...)
		}
	}
	return all
}

func typeOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "string"
	case reflect.Int, reflect.Int64:
		return "integer"
	case reflect.Float64:
		return "number"
	case reflect.Bool:
		return "boolean"
	case reflect.Struct:
		return "object"
	case reflect.Map:
		return "object of " + typeOf(t.Elem()) + "s"
	case reflect.Slice:
		return "list of " + typeOf(t.Elem()) + "s"
	}
	return fmt.Sprint("a type without a name: ", t)
}
