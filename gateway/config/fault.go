package config

import (
	"fmt"
	"strings"
)

// Fault is one thing that is wrong with a configuration.
type Fault struct {
	// File is the file as it was named; empty for a command line.
	File string
	// Line and Column count from 1; 0 when the fault has no place in a file.
	Line, Column int
	// Path names the value, as in sites[0].routes[2].cgi, or the flag or
	// variable that set it. Empty for a fault of the whole file.
	Path string
	// Message says what is wrong, Hint what to write instead. The hint may
	// be empty.
	Message, Hint string
}

// Error is one line: FILE:LINE:COLUMN: PATH: MESSAGE (HINT).
func (f *Fault) Error() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", f.Line, f.Column)
		}
		b.WriteString(": ")
	}
	if f.Path != "" {
		b.WriteString(f.Path)
		b.WriteString(": ")
	}
	b.WriteString(f.Message)
	if f.Hint != "" {
		fmt.Fprintf(&b, " (%s)", f.Hint)
	}
	return b.String()
}

// Faults is everything that is wrong with a configuration, in the order of the
// file. It is never empty when it is returned as an error.
type Faults []Fault

// Error has one line for each fault.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i := range fs {
		lines[i] = fs[i].Error()
	}
	return strings.Join(lines, "\n")
}

// position is a place in a file.
type position struct {
	file         string
	line, column int
}
