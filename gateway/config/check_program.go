package config

// companion checks a program that runs beside the pools.
func (c *checker) companion(at string, p *Program) {
	p.Chdir = c.abs(p.Chdir)
	if p.Chdir == "" {
		p.Chdir = c.dir
	}
	c.folder(at+".chdir", p.Chdir)
	if len(p.Command) == 0 || p.Command[0] == "" {
		c.fault(at+".command", "the command is missing", "write command: [PROGRAM, ARGUMENT...]")
	}
	c.oneOf(at+".restart", p.Restart, "always", "on-failure", "never")
	c.oneOf(at+".stop_signal", p.StopSignal, "TERM", "INT", "QUIT", "HUP")
	c.positive(at+".start_timeout", int64(p.StartTimeout))
	c.positive(at+".stop_timeout", int64(p.StopTimeout))
	c.environment(at, &p.Environment)
	c.isolation(at, &p.Isolation)
}
