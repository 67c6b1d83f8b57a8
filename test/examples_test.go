package test

import (
	"bufio"
	"html"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gatecrew/test/harness"
)

// TestExamples follows every link of the examples' first page: what a newcomer
// clicks first must work.
func TestExamples(t *testing.T) {
	// A copy, because the guest book writes beside its configuration.
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(harness.Root(t), "examples"))); err != nil {
		t.Fatal(err)
	}
	g := harness.Start(t, "serve", "-c", filepath.Join(dir, "gatecrew.yaml"))

	index := g.Get("/")
	if index.Status != http.StatusOK {
		t.Fatalf("/: status %d", index.Status)
	}
	links := regexp.MustCompile(`href="(/[^"]*)"`).FindAllStringSubmatch(index.Body, -1)
	if len(links) < 8 {
		t.Fatalf("only %d links on the page", len(links))
	}
	for _, link := range links {
		path := html.UnescapeString(link[1])
		want := http.StatusOK
		switch path {
		case "/app/clock": // takes a minute; see below
			continue
		case "/app/raise":
			want = http.StatusInternalServerError
		}
		if r := g.Get(path); r.Status != want || r.Body == "" {
			t.Errorf("%s: status %d, %d bytes; want %d", path, r.Status, len(r.Body), want)
		}
	}

	t.Run("guestbook", func(t *testing.T) {
		const path = "/cgi-bin/guestbook.py"
		r := g.Do(http.MethodPost, path, strings.NewReader("name=Ann&text=%3Cb%3Ehello"),
			"Content-Type", "application/x-www-form-urlencoded")
		if r.Status != http.StatusSeeOther || r.Header.Get("Location") != path {
			t.Errorf("POST: status %d, Location %q", r.Status, r.Header.Get("Location"))
		}
		if r := g.Get(path); !strings.Contains(r.Body, "&lt;b&gt;hello") {
			t.Errorf("the entry is not on the page:\n%s", r.Body)
		}
	})

	t.Run("sockets", func(t *testing.T) {
		w := g.WebSocket("/sockets/greeter.py")
		w.Expect(harness.OpText, "Hello, 127.0.0.1. What is your name?")
		w.Send(harness.OpText, "Ann")
		w.Expect(harness.OpText, "Good day, Ann!")
		g.WebSocket("/sockets/count.sh").Expect(harness.OpText, "1")
	})

	t.Run("clock", func(t *testing.T) {
		resp, err := harness.Client.Get(g.URL + "/app/clock")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		line, err := bufio.NewReader(resp.Body).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "data: ") {
			t.Errorf("the stream begins with %q, %v", line, err)
		}
	})
}
