// Package reload is what development adds to a pool of workers: it watches the
// files that the application was made from, restarts the pool when one of them
// changes, and shows the developer why the application can't be loaded. Nothing
// of it runs unless a pool asks for it.
package reload
