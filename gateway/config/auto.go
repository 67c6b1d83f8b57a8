package config

import (
	"fmt"
	"runtime"

	"gatecrew/procpool"
)

// workerMemory is what auto takes for the memory of one worker: a Django site
// with its libraries has 60 to 120 MB.
const workerMemory Size = 128 << 20

// autoWorkers is how many workers of so many threads a machine is good for, and
// why. processors and memory are what the gateway may use of it; a memory of 0
// is not known.
//
// The greatest number is gunicorn's rule of two for each processor and one more,
// as some always wait for a database: threads do that too, so that with them it
// is less, but never less than one for each processor, as a Python process
// computes in one thread at a time. It is at most what three quarters of the
// memory have room for. Only a quarter of the processors have a worker when
// there is nothing to do, and at least two: on a large machine that serves
// little the rest would be memory for nothing, and the pool grows as soon as
// requests wait.
func autoWorkers(processors int, memory Size, threads int) Workers {
	processors, threads = max(1, processors), max(1, threads)
	most := max(processors, (2*processors+threads)/threads) // 2n+1 over threads, rounded up
	reason := count(processors, "processor")
	if threads > 1 {
		reason += fmt.Sprintf(", %d threads each", threads)
	}
	if room := int(memory / 4 * 3 / workerMemory); memory > 0 && room < most {
		most = max(1, room)
		reason = fmt.Sprintf("%s has room for %s of %s each", memory/(1<<20)*(1<<20), count(most, "worker"), workerMemory)
	}
	return Workers{Min: min(max(2, processors/4), most), Max: most, Reason: reason}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// machineWorkers is autoWorkers of this machine, or of the container that this
// is: GOMAXPROCS follows the affinity and the CPU limit of the control group. cpus
// are those that the pool is bound to, all of them when it is empty.
func machineWorkers(threads int, cpus []int) Workers {
	memory, _ := procpool.MemoryLimit()
	processors := runtime.GOMAXPROCS(0)
	if len(cpus) > 0 {
		processors = min(processors, len(cpus))
	}
	return autoWorkers(processors, Size(memory), threads)
}
