package static

import (
	"path"
	"strings"
)

// mediaType is what a name's extension says about a file.
type mediaType struct {
	name         string
	compressible bool
}

// typeOf returns the Content-Type for a name. It is a table of our own, so
// that a site does not change with the machine's mime.types; what is not in
// it is never guessed from the content.
func typeOf(name string) (contentType string, compressible bool) {
	if t, ok := types[strings.ToLower(path.Ext(name))]; ok {
		return t.name, t.compressible
	}
	return "application/octet-stream", false
}

// types follows the registry of media types (RFC 6838, RFC 9239 for
// JavaScript, RFC 8081 for fonts) and, for what is not registered, the HTML
// and MIME Sniffing standards.
var types = map[string]mediaType{
	// Text, all of it taken for UTF-8.
	".html":  {"text/html; charset=utf-8", true},
	".htm":   {"text/html; charset=utf-8", true},
	".xhtml": {"application/xhtml+xml", true},
	".css":   {"text/css; charset=utf-8", true},
	".js":    {"text/javascript; charset=utf-8", true},
	".mjs":   {"text/javascript; charset=utf-8", true},
	".txt":   {"text/plain; charset=utf-8", true},
	".md":    {"text/markdown; charset=utf-8", true},
	".csv":   {"text/csv; charset=utf-8", true},
	".ics":   {"text/calendar; charset=utf-8", true},
	".vtt":   {"text/vtt; charset=utf-8", true},
	".xml":   {"application/xml", true}, // it names its encoding itself

	// Data; JSON is UTF-8 by definition and has no charset parameter.
	".json":        {"application/json", true},
	".map":         {"application/json", true},
	".jsonld":      {"application/ld+json", true},
	".geojson":     {"application/geo+json", true},
	".webmanifest": {"application/manifest+json", true},
	".atom":        {"application/atom+xml", true},
	".rss":         {"application/rss+xml", true},
	".wasm":        {"application/wasm", true},
	".pdf":         {"application/pdf", false},
	".zip":         {"application/zip", false},
	".gz":          {"application/gzip", false},
	".tgz":         {"application/gzip", false},
	".bz2":         {"application/x-bzip2", false},
	".xz":          {"application/x-xz", false},
	".zst":         {"application/zstd", false},
	".7z":          {"application/x-7z-compressed", false},
	".tar":         {"application/x-tar", false},
	".epub":        {"application/epub+zip", false},

	// Images.
	".svg":  {"image/svg+xml", true},
	".png":  {"image/png", false},
	".apng": {"image/apng", false},
	".jpg":  {"image/jpeg", false},
	".jpeg": {"image/jpeg", false},
	".gif":  {"image/gif", false},
	".webp": {"image/webp", false},
	".avif": {"image/avif", false},
	".jxl":  {"image/jxl", false},
	".bmp":  {"image/bmp", true},
	".ico":  {"image/vnd.microsoft.icon", true},

	// Fonts; WOFF is compressed as it is.
	".woff":  {"font/woff", false},
	".woff2": {"font/woff2", false},
	".ttf":   {"font/ttf", true},
	".otf":   {"font/otf", true},

	// Sound and pictures that move.
	".mp3":  {"audio/mpeg", false},
	".m4a":  {"audio/mp4", false},
	".aac":  {"audio/aac", false},
	".ogg":  {"audio/ogg", false},
	".oga":  {"audio/ogg", false},
	".opus": {"audio/ogg", false},
	".wav":  {"audio/wav", false},
	".flac": {"audio/flac", false},
	".weba": {"audio/webm", false},
	".mp4":  {"video/mp4", false},
	".m4v":  {"video/mp4", false},
	".webm": {"video/webm", false},
	".ogv":  {"video/ogg", false},
	".mov":  {"video/quicktime", false},
	".m3u8": {"application/vnd.apple.mpegurl", true},
	".mpd":  {"application/dash+xml", true},
}
