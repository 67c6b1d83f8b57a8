package procpool

// generation is one version of a pool's application: the workers that were
// started from the same command, before and after a restart of the pool.
type generation struct {
	number  int // from 1
	command Command
	good    bool // a worker of it was ready once; the pool's lock guards it
	// zygotes has the process that the workers are forked from, when
	// Config.Preload is set.
	zygotes zygoteKeeper
}

// close ends what a generation has beside its workers. It has none any more, and
// none is started again. It doesn't wait.
func (g *generation) close() { g.zygotes.close() }
