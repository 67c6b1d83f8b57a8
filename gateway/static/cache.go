package static

import (
	"math"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Cache holds small files in memory, for any number of Files. It is safe for
// concurrent use. Nil is valid and holds nothing.
//
// It has no memory before it is used. What it holds stays until it is
// superseded or, beyond its bound, used the least recently.
type Cache struct {
	max int64

	mu      sync.Mutex
	size    int64
	entries *simplelru.LRU[cacheKey, *entry]
}

type cacheKey struct {
	files *Files
	path  string
}

// NewCache makes a cache of max bytes: contents, heads and an estimate of what
// else an entry costs. 0 makes none.
func NewCache(max int64) *Cache {
	if max <= 0 {
		return nil
	}
	c := &Cache{max: max}
	c.entries, _ = simplelru.NewLRU(math.MaxInt, func(_ cacheKey, e *entry) { c.size -= e.size }) // fails for sizes below 1 alone
	return c
}

func (c *Cache) get(files *Files, path string) *entry {
	c.mu.Lock()
	e, _ := c.entries.Get(cacheKey{files, path})
	c.mu.Unlock()
	return e
}

// put adds e in the place of the entry that the path had; a nil e only removes
// that.
func (c *Cache) put(files *Files, path string, e *entry) {
	key := cacheKey{files, path}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries.Remove(key)
	if e == nil || e.size > c.max {
		return
	}
	c.entries.Add(key, e)
	for c.size += e.size; c.size > c.max; {
		c.entries.RemoveOldest()
	}
}

// forget removes the entries of files.
func (c *Cache) forget(files *Files) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range c.entries.Keys() {
		if key.files == files {
			c.entries.Remove(key)
		}
	}
}
