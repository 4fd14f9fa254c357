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
//
// It stays in the process group of the program that started it: Ctrl-C on the
// terminal reaches it too, so that it ends even if a test is interrupted, which has
// no chance to clean up.
type Process struct {
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
	stop  context.CancelFunc
}

// Start runs a program until [Process.Stop] is called. Its output is appended to
// the log file; it gets env and nothing else as its environment.
func Start(log string, env []string, name string, args ...string) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600) //nolint:gosec // a file of this run's folder
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // the process has its own
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // the caller names a program that was built for this
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopWithin // then it is killed
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	p := &Process{cmd: cmd, log: log, ended: make(chan struct{}), stop: cancel}
	go func() {
		_ = cmd.Wait() // it is no failure to be stopped
		close(p.ended)
	}()
	return p, nil
}

// Stop ends the process politely, so that it stops its own; and after a while for
// good, and its own as well.
func (p *Process) Stop() {
	children, _ := p.Children()
	p.stop()
	<-p.ended
	if p.cmd.ProcessState.Exited() {
		return
	}
	Kill(children...) // they may have followed by themselves
}

// Kill ends the process as kill -9 does, and returns the ids of its children, which
// live on.
func (p *Process) Kill() (orphans []int, err error) {
	orphans, err = p.Children()
	if err := errors.Join(err, p.cmd.Process.Kill()); err != nil {
		return nil, err
	}
	<-p.ended
	p.stop()
	return orphans, nil
}

// Ended is closed when the process has ended, by itself or not.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Await waits until ready says so, for half a minute at most; the process must not
// end before.
func (p *Process) Await(ctx context.Context, ready func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for !ready(ctx) {
		select {
		case <-p.ended:
			text, err := os.ReadFile(p.log)
			return errors.Join(fmt.Errorf("%s ended by itself:\n%s", filepath.Base(p.cmd.Path), text), err)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", filepath.Base(p.cmd.Path), ctx.Err())
		case <-time.After(lookEvery):
		}
	}
	return nil
}

// Children returns the ids of the running children of the process, as the proc file
// system of Linux tells them.
func (p *Process) Children() ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		return nil, errors.Join(errors.New("no processes in /proc: this needs Linux"), err)
	}
	var children []int
	for _, stat := range stats {
		text, err := os.ReadFile(stat) //nolint:gosec // a file of the kernel's
		if err != nil {
			continue // has ended meanwhile
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

// Kill ends processes as kill -9 does. One that has ended by itself is no failure.
func Kill(pids ...int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}
