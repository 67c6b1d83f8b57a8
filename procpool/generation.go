package procpool

// generation is one version of a pool's application: the workers that were
// started from the same command, before and after a restart of the pool.
type generation struct {
	number  int // from 1
	command Command
}
