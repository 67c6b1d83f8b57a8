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
// A main program calls GuardMain first and BecomeReaper when it will host
// applications. A program that has called BecomeReaper must start processes
// with this package alone: os/exec would lose their exit status.
//
// The package needs Linux. With a kernel before 5.4 each running child costs a
// thread of the gateway.
package procpool
