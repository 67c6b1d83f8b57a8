package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Setting is a value that a flag or a variable gives.
type Setting struct {
	// Name is how it was given, for faults: --workers or $WEB_CONCURRENCY.
	Name string
	// Keys are where the value goes. For the whole gateway they are as in a
	// file, limits.max_body; ForTarget also knows those of its target,
	// pool.workers, cgi.max, fastcgi.root, route.root_path and site.hosts.
	// Keys of other targets are passed over.
	Keys []string
	// Values are the elements of a list, the NAME=VALUE pairs of a mapping,
	// or one value.
	Values []string
	// Ambient is a setting that may be meant for other programs too, such as
	// a variable of the platform: it is no fault when the target has no use
	// for it.
	Ambient bool
}

// place is a value that settings go into.
type place struct {
	value reflect.Value
	path  string
}

// set puts a setting where it belongs. kind and places are those of a Run;
// without them only keys of the whole gateway have a place.
func (c *checker) set(s Setting, kind string, places map[string]place) {
	applies := s.Ambient
	for _, key := range s.Keys {
		start, rest, _ := strings.Cut(key, ".")
		p, ok := places[start]
		switch {
		case ok && (start != "route" || kind == "pool"):
		case slices.Contains([]string{"pool", "cgi", "socket", "fastcgi", "route"}, start):
			continue // what another target would be
		default:
			p, rest = place{reflect.ValueOf(c.cfg).Elem(), ""}, key
		}
		v, path := p.value, p.path
		for name := range strings.SplitSeq(rest, ".") {
			v, _ = field(v, name)
			path = join(path, name)
			if v.Kind() == reflect.Pointer {
				v = allocated(v)
			}
		}
		maps.DeleteFunc(c.origins, func(o string, _ position) bool { return strings.HasPrefix(o, path+"[") })
		c.names[path] = s.Name
		c.origins[path] = position{}
		c.assign(v, path, s)
		applies = true
	}
	if !applies {
		c.faults = append(c.faults, at(fault("it does not apply to this target, which is "+targetNames[kind], "leave it out"), position{}, s.Name))
	}
}

var targetNames = map[string]string{"pool": "a Python application", "cgi": "CGI", "socket": "a program over WebSocket", "fastcgi": "a FastCGI address"}

// allocated is what a pointer leads to, made with its defaults when it leads
// nowhere.
func allocated(v reflect.Value) reflect.Value {
	if v.IsNil() {
		v.Set(reflect.New(v.Type().Elem()))
		if x, ok := v.Interface().(interface{ setDefaults() }); ok {
			x.setDefaults()
		}
	}
	return v.Elem()
}

func (c *checker) assign(v reflect.Value, path string, s Setting) {
	report := func(err error) { c.faults = append(c.faults, at(err, position{}, s.Name)) }
	switch {
	case isScalar(v.Type()):
		if err := setText(v, s.Values[len(s.Values)-1]); err != nil {
			report(err)
		}
	case v.Kind() == reflect.Slice:
		list := reflect.MakeSlice(v.Type(), len(s.Values), len(s.Values))
		for i, text := range s.Values {
			c.origins[fmt.Sprintf("%s[%d]", path, i)] = position{}
			if err := setText(list.Index(i), text); err != nil {
				report(err)
			}
		}
		v.Set(list)
	case v.Kind() == reflect.Map:
		pairs := map[string]string{}
		for _, text := range s.Values {
			name, value, ok := strings.Cut(text, "=")
			if !ok {
				hint := ""
				if strings.HasSuffix(path, ".env") {
					hint = "write --pass-env " + text + " to pass on what is set already"
				}
				report(fault(fmt.Sprintf("%q is not NAME=VALUE", text), hint))
				continue
			}
			pairs[name] = value
		}
		v.Set(reflect.ValueOf(pairs))
	}
}
