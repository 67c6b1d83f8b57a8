package procpool

import (
	"sync"
	"testing"
)

// A worker says which files its application has imported, and what it said last
// is known before its end is: the application that can't be loaded is the one
// whose files matter most.
func TestModulesAreToldBeforeTheFailure(t *testing.T) {
	for range 5 {
		var mu sync.Mutex
		var told []string
		p := newPool(t, Config{Command: testWorker(t, "modules fail"), Modules: func(w WorkerInfo, files []string) {
			mu.Lock()
			defer mu.Unlock()
			if w.Pool != "test" || w.PID == 0 {
				t.Errorf("told by %+v", w)
			}
			told = files
		}})
		<-p.Failed()
		mu.Lock()
		if len(told) != 20001 || told[0] != "/srv/app.py" {
			t.Errorf("told of %d files", len(told))
		}
		mu.Unlock()
		p.Close()
	}
}
