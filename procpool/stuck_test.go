package procpool

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// answerCommands is the other end of a control connection. mode says how it
// fails: "held" answers nothing but the signal, "mute" not even that, "refuses"
// interrupts nothing and says so, "vain" says nothing.
func answerCommands(mode string, hung chan struct{}) {
	has := func(word string) bool { return slices.Contains(strings.Fields(mode), word) }
	control, dumps := os.NewFile(4, "control"), os.NewFile(5, "dumps")
	if !has("mute") {
		const sig = 62
		dump := make(chan os.Signal, 1)
		signal.Notify(dump, syscall.Signal(sig))
		go func() {
			for range dump {
				fmt.Fprint(dumps, "Thread 0x1 (most recent call first):\n  File \"app.py\", line 1 in view\n\n")
				time.Sleep(dumpPause / 2)
				fmt.Fprint(dumps, "Current thread 0x2\n")
			}
		}()
		fmt.Fprintf(control, "{\"dump_signal\": %d}\n", sig)
	}
	for lines := bufio.NewScanner(control); lines.Scan(); {
		words := strings.Split(lines.Text(), " ")
		switch {
		case words[0] == "recall", has("held"), has("mute"):
		case words[0] == "stacks":
			fmt.Fprintf(control, "{\"answer\": 1000, \"text\": \"of another\"}\n{\"answer\": %s, \"text\": \"%s is here\"}\n", words[1], words[2])
		case has("refuses"):
			fmt.Fprintf(control, "{\"answer\": %s, \"text\": \"no\"}\n", words[1])
		case has("vain"):
			fmt.Fprintf(control, "{\"answer\": %s, \"text\": \"\"}\n", words[1])
		default:
			fmt.Printf("interrupt %s\n", strings.Join(words[2:], " "))
			fmt.Fprintf(control, "{\"answer\": %s, \"text\": \"\"}\n", words[1])
			close(hung)
		}
	}
}

func TestStacks(t *testing.T) {
	for mode, want := range map[string]struct{ text, err string }{
		"": {text: "r+1%0A is here"},
		"held": {text: "the interpreter is held by a C function; the stacks of all threads as faulthandler writes them:\n" +
			"Thread 0x1 (most recent call first):\n  File \"app.py\", line 1 in view\n\nCurrent thread 0x2\n"},
		"mute": {err: "the worker has no signal for its stacks"},
	} {
		t.Run(mode, func(t *testing.T) {
			p := newPool(t, Config{Command: testWorker(t, "control "+mode)})
			l := lease(t, p)
			defer l.Release()
			text, err := l.Stacks(t.Context(), "r 1\n")
			if text != want.text || (err != nil) != (want.err != "") || err != nil && !strings.Contains(err.Error(), want.err) {
				t.Errorf("%q, %v", text, err)
			}
		})
	}
}

// Nobody waits for the answer of a worker that is gone.
func TestStacksOfTheDead(t *testing.T) {
	p := newPool(t, Config{Command: testWorker(t, "control held")})
	l := lease(t, p)
	began := time.Now()
	go func() { _ = do(l, "exit") }()
	if _, err := l.Stacks(t.Context(), "r"); err == nil || !strings.Contains(err.Error(), "gone") || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	l.Release()
}

func TestInterrupt(t *testing.T) {
	printed := make(chan string, 1)
	p := newPool(t, Config{Command: testWorker(t, "control", "CAPACITY=2"), Output: func(_ WorkerInfo, _ string, line []byte) {
		select {
		case printed <- string(line):
		default:
		}
	}})
	l, sibling := lease(t, p), lease(t, p)
	go func() {
		if err := do(l, "hang"); err != nil {
			t.Errorf("the request that was interrupted: %v", err)
		}
		l.Release()
	}()
	if !l.Interrupt("r&1", "no answer for 1s", 10*time.Second) {
		t.Error("the request did not end")
	}
	if got := <-printed; got != "interrupt r%261 10.000 no+answer+for+1s" {
		t.Errorf("the worker was told %q", got)
	}
	if err := do(sibling, "sleep 1ms"); err != nil || sibling.Worker().PID != l.Worker().PID {
		t.Errorf("the one beside it: %v", err)
	}
	sibling.Release()
	if !l.Interrupt("r&1", "no answer for 1s", time.Hour) {
		t.Error("a request that has ended was not taken to be")
	}
}

func TestInterruptInVain(t *testing.T) {
	for _, mode := range []string{"refuses", "vain", "held"} {
		t.Run(mode, func(t *testing.T) {
			fake := newFakeClock()
			p := newPool(t, Config{Command: testWorker(t, "control "+mode), clk: fake.clock()})
			l := lease(t, p)
			defer l.Release()
			result := make(chan bool, 1)
			go func() { result <- l.Interrupt("r", "no answer for 1s", time.Second) }()
			select {
			case ok := <-result:
				t.Fatalf("%v at once", ok)
			case <-time.After(50 * time.Millisecond):
			}
			eventually(t, "the patience has ended", func() bool {
				fake.advance(time.Second)
				select {
				case ok := <-result:
					if ok {
						t.Error("the request is said to have ended")
					}
					return true
				default:
					return false
				}
			})
		})
	}
}
