package config

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
	"github.com/xrash/smetrics"
)

// decoder reads a syntax tree into the types of this package. The library's
// own decoder stops at the first fault; this one goes on and keeps them all,
// with the place of each value for the checks that follow.
type decoder struct {
	file    string
	anchors map[string]ast.Node
	origins map[string]position
	faults  Faults
	budget  int
}

// maxNodes bounds the values of one file, so that aliases which repeat each
// other, or themselves, end in a fault.
const maxNodes = 50_000

func newDecoder(file string) *decoder {
	return &decoder{file: file, anchors: map[string]ast.Node{}, origins: map[string]position{}, budget: maxNodes}
}

// Visit collects anchors; it makes the decoder an ast.Visitor.
func (d *decoder) Visit(n ast.Node) ast.Visitor {
	if a, ok := n.(*ast.AnchorNode); ok && a.Name != nil {
		d.anchors[a.Name.GetToken().Value] = a.Value
	}
	return d
}

func (d *decoder) fault(n ast.Node, path, message, hint string) {
	d.faults = append(d.faults, at(fault(message, hint), d.place(n), path))
}

// place is where a value begins: for a block mapping that is its first key.
func (d *decoder) place(n ast.Node) position {
	var t *token.Token
	switch n := n.(type) {
	case nil:
	case *ast.MappingNode:
		t = n.Start
		if !n.IsFlowStyle && len(n.Values) > 0 {
			t = n.Values[0].Key.GetToken()
		}
	case *ast.MappingValueNode:
		t = n.Key.GetToken()
	default:
		t = n.GetToken()
	}
	if t == nil || t.Position == nil {
		return position{file: d.file}
	}
	return position{d.file, t.Position.Line, t.Position.Column}
}

// document reads the whole file.
func (d *decoder) document(body ast.Node, cfg *Config) {
	d.value(body, reflect.ValueOf(cfg).Elem(), "")
}

// value reads node n into v. Its path has been given an origin by the caller.
func (d *decoder) value(n ast.Node, v reflect.Value, path string) {
	if !d.spend(n, path) {
		return
	}
	if isScalar(v.Type()) {
		d.origins[path] = d.place(n) // rather than that of its key
	}
	n, ok := d.resolve(n, path)
	if !ok {
		return
	}
	if _, scalar := scalarText(n); scalar && !isScalar(v.Type()) {
		d.fault(n, path, "a single value stands where "+kindName(v.Type())+" is wanted", "")
		return
	}
	switch {
	case v.Kind() == reflect.Pointer:
		d.pointer(n, v, path)
	case isScalar(v.Type()):
		d.scalar(n, v, path)
	case v.Kind() == reflect.Struct:
		d.mapping(n, path, func(key string) (reflect.Value, bool) { return field(v, key) }, fieldNames(v.Type()))
	case v.Kind() == reflect.Slice:
		d.list(n, v, path)
	case v.Kind() == reflect.Map:
		d.table(n, v, path)
	}
}

// spend counts a value, and reports the first that is too many.
func (d *decoder) spend(n ast.Node, path string) bool {
	d.budget--
	if d.budget == 0 {
		d.fault(n, path, "the file has too many values", "an alias may stand in the value that it repeats")
	}
	return d.budget > 0
}

// resolve follows anchors, aliases and tags to a value.
func (d *decoder) resolve(n ast.Node, path string) (ast.Node, bool) {
	for range maxAliases {
		switch x := n.(type) {
		case *ast.AnchorNode:
			n = x.Value
		case *ast.TagNode:
			n = x.Value
		case *ast.AliasNode:
			name := x.Value.GetToken().Value
			target, ok := d.anchors[name]
			if !ok {
				d.fault(n, path, fmt.Sprintf("the alias *%s has no anchor &%s", name, name), "")
				return nil, false
			}
			n = target
		case nil:
			d.fault(n, path, "the value is missing", "")
			return nil, false
		default:
			return n, true
		}
	}
	d.fault(n, path, "an alias stands for itself", "")
	return nil, false
}

// maxAliases is how many aliases may stand for each other.
const maxAliases = 16

// scalarText is the text of a scalar as it was written, quotes resolved.
func scalarText(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func isNull(n ast.Node) bool { return n.Type() == ast.NullType }

func (d *decoder) scalar(n ast.Node, v reflect.Value, path string) {
	text, ok := scalarText(n)
	switch {
	case isNull(n):
		d.fault(n, path, "the value is missing", "leave the line out for the default")
	case !ok:
		d.fault(n, path, "a list or mapping stands where a single value is wanted", "")
	default:
		if err := setText(v, text); err != nil {
			d.faults = append(d.faults, at(err, d.place(n), path))
		}
	}
}

func (d *decoder) pointer(n ast.Node, v reflect.Value, path string) {
	v.SetZero() // a value that was merged is replaced
	d.value(n, allocated(v), path)
}

func (d *decoder) list(n ast.Node, v reflect.Value, path string) {
	if isNull(n) {
		v.SetZero()
		return
	}
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		d.fault(n, path, "a mapping stands where a list is wanted", "")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(list.Values), len(list.Values)))
	for i, item := range list.Values {
		itemPath := fmt.Sprintf("%s[%d]", path, i)
		d.origins[itemPath] = d.place(item)
		d.value(item, v.Index(i), itemPath)
	}
}

// table reads a map whose keys are names that the file chooses.
func (d *decoder) table(n ast.Node, v reflect.Value, path string) {
	v.Set(reflect.MakeMap(v.Type()))
	d.mapping(n, path, nil, nil)
	each(n, func(entry *ast.MappingValueNode) {
		key, ok := scalarText(entry.Key)
		if !ok {
			return // mapping has reported it
		}
		item := reflect.New(v.Type().Elem()).Elem()
		itemPath := join(path, key)
		if value, ok := d.resolve(entry.Value, itemPath); ok && !(isNull(value) && item.Kind() == reflect.String) {
			where := d.origins[itemPath]
			d.value(value, item, itemPath)
			d.origins[itemPath] = where // the name is what checks look at
		}
		v.SetMapIndex(reflect.ValueOf(key), item)
	})
}

func each(n ast.Node, do func(*ast.MappingValueNode)) {
	switch n := n.(type) {
	case *ast.MappingNode:
		for _, entry := range n.Values {
			do(entry)
		}
	case *ast.MappingValueNode:
		do(n)
	}
}

// mapping gives each entry of n an origin and reads it into the value that
// find returns for its key. Without find the keys are free and the caller
// reads the values.
func (d *decoder) mapping(n ast.Node, path string, find func(key string) (reflect.Value, bool), known []string) {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
	default:
		if !isNull(n) {
			d.fault(n, path, "a list stands where a mapping is wanted", "")
		}
		return
	}
	// What is merged comes first, so that what stands here wins.
	each(n, func(entry *ast.MappingValueNode) {
		if isMerge(entry) && find != nil {
			d.merge(entry.Value, path, find, known)
		}
	})
	seen := map[string]position{}
	each(n, func(entry *ast.MappingValueNode) {
		if isMerge(entry) && find != nil {
			return
		}
		key, ok := scalarText(entry.Key)
		where := d.place(entry)
		if !ok || key == "" {
			d.fault(entry, path, fmt.Sprintf("%q can't be a key", entry.Key.String()), "a key is a name")
			return
		}
		keyPath := join(path, key)
		if first, again := seen[key]; again {
			d.fault(entry, keyPath, fmt.Sprintf("the key stands here a second time; line %d has it too", first.line), "")
			return
		}
		seen[key] = where
		d.origins[keyPath] = where
		if find == nil {
			return
		}
		v, ok := find(key)
		if !ok {
			d.fault(entry, keyPath, "there is no such key here", suggest(key, known))
			return
		}
		d.value(entry.Value, v, keyPath)
	})
}

func isMerge(entry *ast.MappingValueNode) bool {
	_, ok := entry.Key.(*ast.MergeKeyNode)
	return ok
}

// merge reads << of a mapping: the entries of another one, or of several of
// which the first wins.
func (d *decoder) merge(n ast.Node, path string, find func(key string) (reflect.Value, bool), known []string) {
	n, ok := d.resolve(n, path)
	if !ok || !d.spend(n, path) {
		return
	}
	if list, ok := n.(*ast.SequenceNode); ok {
		for _, item := range slices.Backward(list.Values) {
			d.merge(item, path, find, known)
		}
		return
	}
	d.mapping(n, path, find, known)
}

// isScalar reports whether a type is written as a single value.
func isScalar(t reflect.Type) bool {
	switch reflect.New(t).Interface().(type) {
	case *Size, *Workers, *Address, *Endpoint:
		return true
	}
	return t.Kind() != reflect.Struct && t.Kind() != reflect.Slice && t.Kind() != reflect.Map && t.Kind() != reflect.Pointer
}

func kindName(t reflect.Type) string {
	if t.Kind() == reflect.Slice {
		return "a list"
	}
	return "a mapping"
}

// field finds the field of a struct that a key names, looking into embedded
// structs, whose fields stand beside its own.
func field(v reflect.Value, key string) (reflect.Value, bool) {
	for f, fv := range v.Fields() {
		if f.Anonymous {
			if inner, ok := field(fv, key); ok {
				return inner, true
			}
		} else if keyOf(f) == key {
			return fv, true
		}
	}
	return reflect.Value{}, false
}

func fieldNames(t reflect.Type) []string {
	var names []string
	for f := range t.Fields() {
		if f.Anonymous {
			names = append(names, fieldNames(f.Type)...)
		} else if key := keyOf(f); key != "" {
			names = append(names, key)
		}
	}
	return names
}

func keyOf(f reflect.StructField) string {
	key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return key
}

var plainKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)

// join appends a key to the path of a value.
func join(path, key string) string {
	switch {
	case !plainKey.MatchString(key):
		return fmt.Sprintf("%s[%q]", path, key)
	case path == "":
		return key
	}
	return path + "." + key
}

// suggest is a hint for a name that is not known: the nearest known one, or
// all of them when none is near.
func suggest(name string, known []string) string {
	if near := Nearest(name, known); near != "" {
		return "did you mean " + near + "?"
	}
	return "known here: " + strings.Join(known, ", ")
}

// Nearest returns the known name that was likely meant by one that is not, or
// "" when none is near.
func Nearest(name string, known []string) string {
	best, distance := "", min(3, (len(name)+1)/2)+1
	for _, k := range known {
		if n := smetrics.WagnerFischer(strings.ToLower(name), k, 1, 1, 1); n < distance {
			best, distance = k, n
		}
	}
	return best
}
