package test

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"os"
	"testing"
)

// noise is n bytes that nothing can compress, the same ones each time.
func noise(n int64) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{}), n) }

// noiseSum is the SHA-256 of these bytes.
func noiseSum(t testing.TB, n int64) string {
	t.Helper()
	sum := sha256.New()
	if _, err := io.Copy(sum, noise(n)); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// writeNoise makes a file of them.
func writeNoise(t testing.TB, path string, n int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = io.Copy(f, noise(n)); err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}
