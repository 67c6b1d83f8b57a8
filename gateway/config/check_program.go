package config

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// programs checks what runs beside the pools. The pools have been checked.
func (c *checker) programs() {
	for _, name := range slices.Sorted(maps.Keys(c.cfg.Programs)) {
		if p := c.cfg.Programs[name]; p != nil {
			c.companion(join("programs", name), p)
		}
	}
	_, circles := startOrder(c.cfg.Programs)
	for _, circle := range circles {
		last := len(circle) - 1
		steps := make([]string, len(circle))
		for i, name := range circle {
			steps[i] = name + " after " + circle[(i+1)%len(circle)]
		}
		at := slices.Index(c.cfg.Programs[circle[last]].After, circle[0])
		c.fault(fmt.Sprintf("%s.after[%d]", join("programs", circle[last]), at),
			"nothing could be started first: "+strings.Join(steps, ", "), "leave one of these out")
	}
}

// companion checks one program.
func (c *checker) companion(at string, p *Program) {
	in := c.surroundings(at, &p.Isolation, &p.Chdir)
	c.command(at+".command", p.Command, p.Chroot)
	c.after(at, p.After)
	c.reachable(at+".ready", &p.Ready)
	c.oneOf(at+".restart", p.Restart, "always", "on-failure", "never")
	c.oneOf(at+".stop_signal", p.StopSignal, "TERM", "INT", "QUIT", "HUP")
	c.positive(at+".start_timeout", int64(p.StartTimeout))
	c.positive(at+".stop_timeout", int64(p.StopTimeout))
	c.environment(at, in, &p.Environment)
}

// command finds the program of a command, as a process sees it whose root
// folder is chroot.
func (c *checker) command(at string, command []string, chroot string) {
	if len(command) == 0 || command[0] == "" {
		c.fault(at, "the command is missing", "write command: [PROGRAM, ARGUMENT...]")
		return
	}
	name := command[0]
	switch {
	case chroot != "", strings.Contains(name, "/"):
		if found, ok := c.inside(chroot).program(at+"[0]", name); ok {
			command[0] = found
		}
	default:
		c.commandName(at+"[0]", &command[0])
	}
}

// commandName finds a program that was given by its name alone: beside the
// interpreters of the pools, then in $PATH.
func (c *checker) commandName(at string, name *string) {
	var found []string
	for _, bin := range c.poolBins() {
		if path, err := exec.LookPath(filepath.Join(bin, *name)); err == nil {
			found = append(found, path)
		}
	}
	switch {
	case len(found) > 1:
		c.fault(at, fmt.Sprintf("the pools use several virtual environments that have a program %s", *name), "write "+strings.Join(found, " or "))
		return
	case len(found) == 1:
		*name = found[0]
		return
	}
	path, err := exec.LookPath(*name)
	switch {
	case err != nil && strings.ContainsAny(*name, " \t"):
		c.fault(at, "there is no program "+*name, "write each argument as an element of its own: [PROGRAM, ARGUMENT...]")
	case err != nil:
		c.fault(at, fmt.Sprintf("there is no program %s, neither in the virtual environment of a pool nor in $PATH", *name), "install it there, or write its path")
	default:
		*name = path
	}
}

// poolBins returns the folders of the pools' interpreters, without those of
// $PATH.
func (c *checker) poolBins() (bins []string) {
	onPath := filepath.SplitList(os.Getenv("PATH"))
	for _, p := range c.cfg.Pools {
		if p == nil || p.Chroot != "" || !filepath.IsAbs(p.Python) {
			continue
		}
		if bin := filepath.Dir(p.Python); !slices.Contains(onPath, bin) {
			bins = append(bins, bin)
		}
	}
	slices.Sort(bins)
	return slices.Compact(bins)
}

// after checks the names of programs that have to be up before something else.
func (c *checker) after(at string, names []string) {
	for i, name := range names {
		if _, ok := c.cfg.Programs[name]; ok {
			continue
		}
		hint := "write it under programs, with its command"
		if len(c.cfg.Programs) > 0 {
			hint = suggest(name, slices.Sorted(maps.Keys(c.cfg.Programs)))
		}
		c.fault(fmt.Sprintf("%s.after[%d]", at, i), fmt.Sprintf("there is no program %q", name), hint)
	}
}

// StartOrder returns the names of the programs, each behind those that it comes
// after, and by name where that leaves a choice.
func (c *Config) StartOrder() []string {
	order, _ := startOrder(c.Programs)
	return order
}

// startOrder also returns the circles, in each of which every name comes after
// the next one, and the last after the first.
func startOrder(programs map[string]*Program) (order []string, circles [][]string) {
	seen := map[string]bool{}
	var way []string // from where we came, each after the next
	var visit func(name string)
	visit = func(name string) {
		if i := slices.Index(way, name); i >= 0 {
			circles = append(circles, slices.Clone(way[i:]))
			return
		}
		p := programs[name]
		if p == nil || seen[name] {
			return
		}
		seen[name] = true
		way = append(way, name)
		for _, first := range p.After {
			visit(first)
		}
		way = way[:len(way)-1]
		order = append(order, name)
	}
	for _, name := range slices.Sorted(maps.Keys(programs)) {
		visit(name)
	}
	return order, circles
}
