package config

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// YAML writes the whole configuration as a file that Load reads back to the
// same one. Values that are defaults are marked with a comment.
func (c *Config) YAML() ([]byte, error) {
	comments := yaml.CommentMap{}
	c.markDefaults(reflect.ValueOf(c).Elem(), "", "$", comments)
	return yaml.MarshalWithOptions(c,
		yaml.CustomMarshaler(func(d time.Duration) ([]byte, error) { return []byte(formatDuration(d)), nil }),
		yaml.WithComment(comments), yaml.IndentSequence(true), yaml.UseSingleQuote(false))
}

// MarshalYAML writes pass_authorization for routes that can have it, and then
// also when it is false.
func (r *Route) MarshalYAML() (any, error) {
	out := struct {
		Path              string    `yaml:"path"`
		Static            *Static   `yaml:"static,omitempty"`
		CGI               *CGI      `yaml:"cgi,omitempty"`
		Socket            *Socket   `yaml:"socket,omitempty"`
		FastCGI           *FastCGI  `yaml:"fastcgi,omitempty"`
		Pool              string    `yaml:"pool,omitempty"`
		Priority          string    `yaml:"priority,omitempty"`
		RootPath          string    `yaml:"root_path,omitempty"`
		PassAuthorization *bool     `yaml:"pass_authorization,omitempty"`
		Sendfile          *Sendfile `yaml:"sendfile,omitempty"`
	}{r.Path, r.Static, r.CGI, r.Socket, r.FastCGI, r.Pool, r.Priority, r.RootPath, nil, r.Sendfile}
	if r.Pool != "" {
		out.PassAuthorization = &r.PassAuthorization
	}
	return out, nil
}

// markDefaults collects a comment for each single value that was not written.
func (c *Config) markDefaults(v reflect.Value, path, yamlPath string, comments yaml.CommentMap) {
	switch {
	case v.Kind() == reflect.Pointer:
		if !v.IsNil() {
			c.markDefaults(v.Elem(), path, yamlPath, comments)
		}
	case isScalar(v.Type()):
		if _, written := c.origins[path]; !written {
			comments[yamlPath] = []*yaml.Comment{yaml.LineComment(" default")}
		}
	case v.Kind() == reflect.Struct:
		for f, fv := range v.Fields() {
			key := keyOf(f)
			switch {
			case f.Anonymous:
				c.markDefaults(fv, path, yamlPath, comments)
			case key == "", strings.Contains(f.Tag.Get("yaml"), "omitempty") && fv.IsZero():
			default:
				c.markDefaults(fv, join(path, key), yamlPath+"."+key, comments)
			}
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			c.markDefaults(v.Index(i), fmt.Sprintf("%s[%d]", path, i), fmt.Sprintf("%s[%d]", yamlPath, i), comments)
		}
	case v.Kind() == reflect.Map && v.Type().Elem().Kind() == reflect.Pointer:
		for _, key := range v.MapKeys() {
			if strings.ContainsAny(key.String(), `'\`) {
				continue // the library's paths can't name it
			}
			c.markDefaults(v.MapIndex(key), join(path, key.String()), yamlPath+".'"+key.String()+"'", comments)
		}
	}
}
