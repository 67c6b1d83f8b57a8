package config

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Load reads a configuration file, and puts settings for the whole gateway over
// what it says. The error is of type Faults and holds everything that is wrong
// with either; then there is no Config.
func Load(path string, over ...Setting) (*Config, error) {
	data, err := os.ReadFile(path)
	if err == nil && Size(len(data)) > maxFile {
		err = fmt.Errorf("it is larger than %v bytes", maxFile)
	}
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, Faults{{File: path, Message: "the configuration can't be read: " + err.Error()}}
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, Faults{{File: path, Message: err.Error()}}
	}
	return load(path, abs, data, over)
}

// maxFile is far above any configuration that a person wrote.
const maxFile = Size(8 << 20)

// load is Load for a file that was read; abs is where it lies.
func load(name, abs string, data []byte, over []Setting) (*Config, error) {
	tree, err := parse(data)
	if err != nil {
		return nil, Faults{syntaxFault(name, err)}
	}
	cfg, d := Default(), newDecoder(name)
	if len(tree.Docs) > 1 {
		where := position{file: name}
		if start := tree.Docs[1].Start; start != nil {
			where.line, where.column = start.Position.Line, start.Position.Column
		}
		return nil, Faults{at(fault("the file holds more than one YAML document", "remove the --- line"), where, "")}
	}
	for _, doc := range tree.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType {
			continue
		}
		ast.Walk(d, doc.Body)
		d.document(doc.Body, cfg)
	}
	if d.budget <= 0 {
		return nil, d.faults // what was not read can't be checked
	}
	c := &checker{
		cfg: cfg, dir: filepath.Dir(abs), file: abs, whole: position{file: name},
		origins: d.origins, names: map[string]string{}, faults: d.faults,
	}
	for _, s := range over {
		c.set(s, "", nil)
	}
	return c.finish()
}

// parse makes the syntax tree. Duplicate keys are left to the decoder, which
// reports them with everything else.
func parse(data []byte) (file *ast.File, err error) {
	defer func() {
		// A defect of the parser must not end a gateway that reads its
		// configuration again.
		if p := recover(); p != nil {
			err = fault("this is not YAML", fmt.Sprint(p))
		}
	}()
	return parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
}

// syntaxFault says where the parser stumbled, without the excerpt that the
// parser's own text has.
func syntaxFault(name string, err error) Fault {
	var syntax yaml.Error
	if !errors.As(err, &syntax) {
		return at(err, position{file: name}, "")
	}
	where := position{file: name}
	if t := syntax.GetToken(); t != nil && t.Position != nil {
		where.line, where.column = t.Position.Line, t.Position.Column
	}
	return at(fault("this is not YAML: "+syntax.GetMessage(), `a value such as - or one with ": " in it stands in quotes`), where, "")
}

// finish checks and completes the configuration, and ends in either of the two
// results of Load.
func (c *checker) finish() (*Config, error) {
	c.check()
	if len(c.faults) > 0 {
		slices.SortStableFunc(c.faults, func(a, b Fault) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
		})
		// A value that goes to several places is wrong once.
		return nil, slices.CompactFunc(c.faults, func(a, b Fault) bool {
			return a.Line == b.Line && a.Column == b.Column && a.Message == b.Message && (a.Line > 0 || a.Path == b.Path)
		})
	}
	c.cfg.origins = c.origins
	return c.cfg, nil
}
