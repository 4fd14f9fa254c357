// SPDX-License-Identifier: MPL-2.0

package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	readyWithin = 30 * time.Second
	stopWithin  = 15 * time.Second
	lookEvery   = 50 * time.Millisecond
)

// Process is a program that runs in the background and writes to a log file.
type Process struct {
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
	stop  context.CancelFunc
}

// Start runs a program until [Process.Stop] is called. Its output is appended to the
// log file; env is its whole environment.
//
// The program stays in the process group of its parent: Ctrl-C on the terminal ends it
// too, even if the parent is a test, which has no chance to clean up.
func Start(log string, env []string, name string, args ...string) (*Process, error) {
	return start(log, env, false, name, args)
}

// StartApart is [Start] for a program that the parent still needs after Ctrl-C. The
// program gets its own process group, and the parent has to stop it.
func StartApart(log string, env []string, name string, args ...string) (*Process, error) {
	return start(log, env, true, name, args)
}

func start(log string, env []string, apart bool, name string, args []string) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600) //nolint:gosec // a file of this run's folder
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // the process has its own
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // the caller names a program that was built for this
	cmd.Env = env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: apart}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopWithin // then it is killed
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	p := &Process{cmd: cmd, log: log, ended: make(chan struct{}), stop: cancel}
	go func() {
		_ = cmd.Wait() // being stopped is no failure
		close(p.ended)
	}()
	return p, nil
}

// Stop interrupts the process, so that it can stop its children, and kills all of them
// if it takes too long.
func (p *Process) Stop() {
	children, _ := p.Children()
	p.stop()
	<-p.ended
	if p.cmd.ProcessState.Exited() {
		return
	}
	Kill(children...) // those that have not ended with it
}

// Kill ends the process as kill -9 does, and returns the ids of its children, which
// keep running.
func (p *Process) Kill() (orphans []int, err error) {
	orphans, err = p.Children()
	if err := errors.Join(err, p.cmd.Process.Kill()); err != nil {
		return nil, err
	}
	<-p.ended
	p.stop()
	return orphans, nil
}

// Freeze stops the process and its children, as a machine does that has no time for them,
// until thaw is called.
func (p *Process) Freeze() (thaw func(), err error) {
	pids, err := p.Children()
	if err != nil {
		return nil, err
	}
	return Freeze(append(pids, p.cmd.Process.Pid)...), nil
}

// Freeze stops processes until they are thawed.
func Freeze(pids ...int) (thaw func()) {
	signal := func(s syscall.Signal) {
		for _, pid := range pids {
			_ = syscall.Kill(pid, s) // it may have ended
		}
	}
	signal(syscall.SIGSTOP)
	return func() { signal(syscall.SIGCONT) }
}

// Ended returns a channel that is closed when the process has ended, for any reason.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Await waits until ready returns true, for half a minute at most. It fails if the
// process ends first.
func (p *Process) Await(ctx context.Context, ready func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for !ready(ctx) {
		select {
		case <-p.ended:
			text, err := os.ReadFile(p.log)
			return errors.Join(fmt.Errorf("%s ended unexpectedly:\n%s", filepath.Base(p.cmd.Path), text), err)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", filepath.Base(p.cmd.Path), ctx.Err())
		case <-time.After(lookEvery):
		}
	}
	return nil
}

// Children returns the ids of the running children of the process. It reads the proc
// file system of Linux.
func (p *Process) Children() ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		return nil, errors.Join(errors.New("no processes in /proc: this needs Linux"), err)
	}
	var children []int
	for _, stat := range stats {
		text, err := os.ReadFile(stat) //nolint:gosec // a file of the kernel's
		if err != nil {
			continue // it has ended in the meantime
		}
		// pid (name) state parent ...; the name can contain anything.
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if len(fields) < 2 || fields[0] == "Z" || fields[1] != strconv.Itoa(p.cmd.Process.Pid) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(stat))); err == nil {
			children = append(children, pid)
		}
	}
	return children, nil
}

// Kill ends processes as kill -9 does, except those that have ended already.
func Kill(pids ...int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}
