package test

import (
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"gatecrew/test/harness"
)

// djangoSite is a gateway that serves test/apps/django_site with its static
// files, as its owner would: nothing about the application is changed.
func djangoSite(t *testing.T, dir, app, workers string, threads int, binary func(testing.TB) string) *harness.Gateway {
	t.Helper()
	g := harness.New(t, "serve", "-c", harness.WriteFile(t, "gatecrew.yaml", fmt.Sprintf(`
log: {access: "off"}
limits: {max_body: 4g, spool_dir: %[1]q}
pools:
  site:
    app: %[2]s
    chdir: %[3]q
    python: %[4]q
    workers: %[5]q
    threads: %[6]d
    env: {TEST_DIR: %[1]q}
sites:
  - routes:
      - {path: /, pool: site}
      - {path: /static, static: {dir: %[7]q}}
`, dir, app, harness.App(t, "django_site"), harness.Python(t), workers, threads, filepath.Join(dir, "static"))))
	g.Binary = binary(t)
	return g.Start()
}

// browser is an HTTP client with cookies that follows redirects.
type browser struct {
	t    testing.TB
	base string
	http *http.Client
}

func newBrowser(t testing.TB, g *harness.Gateway) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t, g.URL, &http.Client{Jar: jar, Transport: harness.Client.Transport}}
}

// page reads a page, or fails the test when its status is another.
func (b *browser) page(path string, status int) string {
	b.t.Helper()
	return b.read("GET "+path, status)(b.http.Get(b.base + path))
}

// submit sends a form to the page that it stands on, with all its hidden fields.
func (b *browser) submit(path string, status int, fields ...string) string {
	b.t.Helper()
	values := url.Values{}
	for _, input := range hiddenField.FindAllStringSubmatch(b.page(path, http.StatusOK), -1) {
		values.Set(input[1], input[2])
	}
	for i := 0; i < len(fields); i += 2 {
		values.Set(fields[i], fields[i+1])
	}
	return b.read("POST "+path, status)(b.http.PostForm(b.base+path, values))
}

var hiddenField = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)"`)

func (b *browser) read(what string, status int) func(*http.Response, error) string {
	b.t.Helper()
	return func(resp *http.Response, err error) string {
		b.t.Helper()
		if err != nil {
			b.t.Errorf("%s: %v", what, err)
			return ""
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != status {
			b.t.Errorf("%s: %d, %v; want %d", what, resp.StatusCode, err, status)
		}
		return string(body)
	}
}

// want demands a text on a page.
func (b *browser) want(page, text string) {
	b.t.Helper()
	if !strings.Contains(page, text) {
		b.t.Errorf("no %q in\n%.3000s", text, page)
	}
}

// TestDjango works in the admin as people do, beside each other, and demands of
// both sides what PEP 3333 does.
func TestDjango(t *testing.T) {
	t.Parallel()
	dir := harness.Django(t)
	for _, c := range []struct {
		workers string
		threads int
	}{{"2", 1}, {"2:4", 4}} {
		t.Run(fmt.Sprintf("%s workers of %d threads", c.workers, c.threads), func(t *testing.T) {
			g := djangoSite(t, dir, "project.checked:application", c.workers, c.threads, harness.Build)
			t.Run("admin", func(t *testing.T) { djangoAdmin(t, g) })
			t.Run("form", func(t *testing.T) { djangoForm(t, g) })
			if r := g.Get("/fail/"); r.Status != http.StatusInternalServerError || strings.Contains(r.Body, "raised") {
				t.Errorf("a view that fails: %d %q", r.Status, r.Body)
			}
			g.LogLine("RuntimeError: raised in a Django view")
			if strings.Contains(g.Stderr(), "AssertionError") {
				t.Errorf("wsgiref.validate complains:\n%s", g.Stderr())
			}
		})
	}
}

func djangoAdmin(t *testing.T, g *harness.Gateway) {
	b := newBrowser(t, g)
	login := b.page("/admin/", http.StatusOK) // redirected
	b.want(login, `name="password"`)
	b.want(b.submit("/admin/login/?next=/admin/", http.StatusOK, "username", "admin", "password", "wrong"), "Please enter the correct username")
	home := b.submit("/admin/login/?next=/admin/", http.StatusOK, "username", "admin", "password", "secret")
	b.want(home, "Site administration")

	// Its style sheets, scripts and pictures come without a worker.
	assets := regexp.MustCompile(`(?:href|src)="(/static/[^"]+)"`).FindAllStringSubmatch(home+login, -1)
	if len(assets) < 4 {
		t.Errorf("only %d static files are named in\n%s", len(assets), home)
	}
	for _, asset := range assets {
		r := g.Get(asset[1])
		if r.Status != http.StatusOK || r.Body == "" || r.Header.Get("ETag") == "" {
			t.Errorf("%s: %d, %d bytes, %v", asset[1], r.Status, len(r.Body), r.Header)
		}
	}

	name := fmt.Sprintf("new%d", g.PID)
	b.want(b.submit("/admin/auth/user/add/", http.StatusOK, "username", name, "password1", "pass-"+name, "password2", "pass-"+name,
		"usable_password", "true"), "was added successfully")
	b.want(b.page("/admin/auth/user/?q=new", http.StatusOK), name)

	// Others work at the same time, each with a session of their own.
	var people sync.WaitGroup
	for _, name := range []string{"ann", "ben", "eve"} {
		people.Go(func() {
			own := newBrowser(t, g)
			own.submit("/admin/login/?next=/admin/", http.StatusOK, "username", name, "password", "secret")
			for range 20 {
				own.want(own.page("/whoami/", http.StatusOK), fmt.Sprintf(`{"user": %q}`, name))
			}
			own.page("/admin/auth/user/", http.StatusForbidden)
		})
	}
	people.Wait()
	b.want(b.page("/whoami/", http.StatusOK), `{"user": "admin"}`)
	if r := g.Get("/whoami/"); r.Status != http.StatusFound || !strings.HasPrefix(r.Header.Get("Location"), "/admin/login/") {
		t.Errorf("a stranger: %d %v", r.Status, r.Header)
	}
}

func djangoForm(t *testing.T, g *harness.Gateway) {
	b := newBrowser(t, g)
	token := b.page("/form/", http.StatusOK)
	form := url.Values{"text": {"ä=&+ \x00"}, "csrfmiddlewaretoken": {token}}
	posted := b.read("POST", http.StatusOK)(b.http.PostForm(g.URL+"/form/", form))
	var answer struct{ Posted map[string]string }
	if err := json.Unmarshal([]byte(posted), &answer); err != nil || answer.Posted["text"] != form.Get("text") {
		t.Errorf("%v: %q came back", err, posted)
	}
	form.Set("csrfmiddlewaretoken", strings.Repeat("x", len(token)))
	b.read("POST with a wrong token", http.StatusForbidden)(b.http.PostForm(g.URL+"/form/", form))
	if r := g.Do("POST", "/form/", strings.NewReader("a=b"), "Content-Type", "application/x-www-form-urlencoded"); r.Status != http.StatusForbidden {
		t.Errorf("POST without a cookie: %d", r.Status)
	}
}

// TestDjangoLargeBodies: what passes through in both directions is held by
// nobody.
func TestDjangoLargeBodies(t *testing.T) {
	t.Parallel()
	dir := harness.Django(t)
	for _, threads := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d threads", threads), func(t *testing.T) {
			g := djangoSite(t, dir, "project.wsgi:application", "2", threads, harness.BuildPlain)
			harness.Eventually(t, 20*time.Second, "both workers are ready", func() bool {
				return strings.Count(g.Stderr(), "worker ready") == 2
			})
			// They have done everything once before they are measured.
			var warm sync.WaitGroup
			for range 4 {
				warm.Go(func() {
					upload(t, g, 3<<20, true)
					download(t, g, 1<<20, "")
				})
			}
			warm.Wait()
			before := map[int]int64{}
			for _, p := range harness.Descendants(g.PID) {
				before[p.PID] = harness.MemoryOf(p.PID).Peak
			}

			for _, multipart := range []bool{true, false} {
				upload(t, g, scaled[int64](50<<20, 500<<20), multipart)
			}
			size := scaled[int64](256<<20, 1<<30)
			var both sync.WaitGroup
			both.Go(func() { download(t, g, size, "") })
			both.Go(func() { download(t, g, size/4, "&length=1") })
			both.Wait()

			if peak := harness.MemoryOf(g.PID).Peak; peak > maxGatewayMemory {
				t.Errorf("the gateway used %d MB", peak>>20)
			}
			for _, p := range harness.Descendants(g.PID) {
				peak, known := harness.MemoryOf(p.PID).Peak, before[p.PID]
				if known == 0 {
					t.Errorf("%v was not there before", p)
				} else if peak > known+24<<20 { // each thread has an arena of the C library's
					t.Errorf("%v grew from %d to %d MB", p, known>>20, peak>>20)
				}
			}
		})
	}
}

// upload sends n bytes of noise to a view that tells their hash; the request is
// chunked.
func upload(t *testing.T, g *harness.Gateway, n int64, asForm bool) {
	t.Helper()
	read, write := io.Pipe()
	kind := "application/octet-stream"
	if asForm {
		form := multipart.NewWriter(write)
		kind = form.FormDataContentType()
		go func() {
			part, err := form.CreateFormFile("file", "noise.bin")
			if err == nil {
				_, err = io.Copy(part, noise(n))
			}
			if err == nil {
				err = form.Close()
			}
			write.CloseWithError(err)
		}()
	} else {
		go func() {
			_, err := io.Copy(write, noise(n))
			write.CloseWithError(err)
		}()
	}
	resp, err := harness.Client.Post(g.URL+"/upload/", kind, read)
	if err != nil {
		t.Errorf("upload of %d bytes: %v", n, err)
		return
	}
	defer resp.Body.Close()
	var answer struct {
		Bytes  int64
		SHA256 string
	}
	err = json.NewDecoder(resp.Body).Decode(&answer)
	if err != nil || resp.StatusCode != http.StatusOK || answer.Bytes != n || answer.SHA256 != noiseSum(t, n) {
		t.Errorf("upload of %d bytes: %v, %d, %+v", n, err, resp.StatusCode, answer)
	}
}

// download reads n streamed bytes and compares each.
func download(t *testing.T, g *harness.Gateway, n int64, query string) {
	t.Helper()
	resp, err := harness.Client.Get(fmt.Sprintf("%s/download/?bytes=%d%s", g.URL, n, query))
	if err != nil {
		t.Errorf("download: %v", err)
		return
	}
	defer resp.Body.Close()
	if length := resp.ContentLength; (length == n) != (query != "") {
		t.Errorf("download: Content-Length %d", length)
	}
	const line = "0123456789abcdef"
	want, got := strings.Repeat(line, 4096), make([]byte, 4096*len(line))
	var read int64
	for {
		m, err := io.ReadFull(resp.Body, got)
		if string(got[:m]) != want[:m] {
			t.Errorf("download: wrong bytes after %d", read)
			return
		}
		read += int64(m)
		if err == io.EOF || err == io.ErrUnexpectedEOF && read == n {
			break
		}
		if err != nil {
			t.Errorf("download: after %d bytes: %v", read, err)
			return
		}
	}
	if read != n {
		t.Errorf("download: %d bytes of %d", read, n)
	}
}
