// Package strictjson reads JSON from sources that are not trusted. Package
// encoding/json takes names in any case and the last of two that are the same, and
// other readers take the first, or exact names only: so a text could mean one thing
// to who checks it and another to who uses it.
package strictjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
)

// Unmarshal is [json.Unmarshal], but it is an error if an object has a name twice that
// is read, or one that differs from it by case only. Names that are not read do not
// matter, nor what is below them or in a value that has its own UnmarshalJSON or is read
// into an interface. In a map every name is read, and case counts. After an error the
// content of into is not defined.
func Unmarshal(raw []byte, into any) error {
	if err := json.Unmarshal(raw, into); err != nil {
		return err
	}
	return check(json.NewDecoder(bytes.NewReader(raw)), reflect.TypeOf(into), "")
}

// check checks the next value, which is valid and fits the type.
func check(d *json.Decoder, t reflect.Type, path string) error {
	for t.Kind() == reflect.Pointer && !decodesItself(t) {
		t = t.Elem()
	}
	if !hasNames(t) {
		var skipped json.RawMessage
		return d.Decode(&skipped)
	}
	begin, err := d.Token()
	switch {
	case err != nil:
		return err
	case begin == json.Delim('['):
		for i := 0; d.More(); i++ {
			if err := check(d, t.Elem(), path+"["+strconv.Itoa(i)+"]"); err != nil {
				return err
			}
		}
	case begin == json.Delim('{'):
		if err := checkObject(d, t, path); err != nil {
			return err
		}
	default: // null
		return nil
	}
	_, err = d.Token() // the end
	return err
}

func checkObject(d *json.Decoder, t reflect.Type, path string) error {
	known, seen := fields(t), map[string]bool{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return err
		}
		name := token.(string) // a valid object has no other
		at := strings.TrimPrefix(path+"."+name, ".")
		value, read := known[name]
		switch {
		case t.Kind() == reflect.Map:
			value, read = t.Elem(), true
		case !read:
			for other := range known {
				if strings.EqualFold(other, name) {
					return fmt.Errorf("%.200q: the name must be %q exactly", at, other)
				}
			}
			value = reflect.TypeFor[any]()
		}
		if read && seen[name] {
			return fmt.Errorf("%.200q is there twice", at)
		}
		seen[name] = read
		if err := check(d, value, at); err != nil {
			return err
		}
	}
	return nil
}

// hasNames reports whether names are read of a value of the type, or of one below it.
func hasNames(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return !decodesItself(t)
	case reflect.Slice, reflect.Array:
		return !decodesItself(t) && t.Elem().Kind() != reflect.Uint8
	}
	return false
}

// decodesItself reports whether encoding/json calls a method of the type.
func decodesItself(t reflect.Type) bool {
	return t.Implements(reflect.TypeFor[json.Unmarshaler]()) || reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) ||
		reflect.PointerTo(t).Implements(reflect.TypeFor[interface{ UnmarshalText([]byte) error }]())
}

// cached are the results of fields: a list may have thousands of objects of one type.
var cached sync.Map

// fields returns the types of a struct's fields by their names in JSON; none of a map.
func fields(t reflect.Type) map[string]reflect.Type {
	if t.Kind() != reflect.Struct {
		return nil
	}
	if all, ok := cached.Load(t); ok {
		return all.(map[string]reflect.Type)
	}
	all := map[string]reflect.Type{}
	defer func() { cached.Store(t, all) }()
	for _, f := range reflect.VisibleFields(t) {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case !f.IsExported(), f.Tag.Get("json") == "-", f.Anonymous && tag == "": // of the last the fields are visible
		case tag != "":
			all[tag] = f.Type
		default:
			all[f.Name] = f.Type
		}
	}
	return all
}
