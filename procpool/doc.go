// Package procpool starts, watches and ends the processes that run
// applications: pools of long-lived workers (Pool) and one process per
// request (Runner). It knows neither HTTP nor what is spoken on a worker's
// socket.
//
// Every child leads its own process group, so that one signal reaches what it
// started as well. A child is seen to have exited before it is reaped, and its
// group is signalled in between: as long as the leader has not been reaped the
// kernel can't give its number to a stranger. A child never outlives the
// gateway: the kernel kills it when its parent dies (PR_SET_PDEATHSIG), and the
// guard, a tiny second process, kills its group and removes run-time
// directories and sockets, also after the gateway was ended by kill -9.
//
// What an application moves into a session of its own (setsid) is out of reach
// of a group's signals. It is known by its parents while these live, and by a
// variable in its environment (GATECREW_INSTANCE). It is ended with the process
// that started it when that one is ended or crashes, and else with the gateway;
// the guard goes by the variable alone. A daemon that has erased its environment
// therefore outlives a gateway that was killed with -9.
//
// # Where things are
//
// In the order of a worker's life; a name is a file.
//
//   - What a pool is told and who owns it: pool, priority, errors. One goroutine
//     for each pool looks at everything and decides: supervise. What it asks are
//     functions of their own: how many workers there should be (scale), which to
//     start (launch), which to replace (recycle), how a new generation takes over
//     (restart, generation), and when to wait with starts or to refuse requests
//     (backoff, health).
//   - A worker is started (worker, workerproc_linux), of its own or forked from
//     one that has loaded the application (zygote_linux), by any thread (spawn_linux,
//     vfork_linux, package vfork), with less than the gateway's rights (package confine)
//     and in a control group (cgroup_linux). How to start it is a command.
//   - It gets requests (lease), a few ahead when it is quick (ahead); others
//     wait in a queue (queue, queuestats) that knows an overload (codel, overload).
//     What it is in is a state.
//   - Beside the requests it is spoken with on a connection of its own (control,
//     dialogue): which files it has loaded, what it is doing, and that a request
//     is to be ended (stuck). Its output is lines (output), its memory is
//     measured (memwatch, memory_linux, memorylimit_linux).
//   - It ends: child_linux sees and collects it, strays_linux finds what it has
//     left behind, orphans_linux collects what others have. guard_linux does so
//     when the gateway can't, with what is entered there: groups, runtimedir,
//     socketfile. What all of them read of /proc is in procfs_linux.
//   - stats is what is known of a pool.
//
// Beside the pools there are processes for one request each (oneshot,
// process_linux, stdout_linux, limiter), which nobody attends at first (nursery)
// and which may be forked from one that has the script loaded (warm,
// warmzygote_linux, warmfiles_linux, warmwire; WARM.md has what is spoken with
// it), and programs that run as long as the gateway (program, programs,
// programs_supervise, program_linux). clock is time as the tests have it.
//
// # For a main program
//
// A main program calls GuardMain first and BecomeReaper when it will host
// applications. A program that has called BecomeReaper must start processes
// with this package alone: os/exec would lose their exit status.
//
// The package needs Linux. With a kernel before 5.4 each running child costs a
// thread of the gateway.
package procpool
