// SPDX-License-Identifier: MPL-2.0

package acceptance

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

// process is a server whose output goes to a log file.
type process struct {
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
	stop  context.CancelFunc
}

// start runs a program in the background until shutdown is called.
func start(log string, env []string, name string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600) //nolint:gosec // a scenario's own file
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // the process has its own
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // a program that was built for this run
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second // then it is killed
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	p := &process{cmd: cmd, log: log, ended: make(chan struct{}), stop: cancel}
	go func() {
		_ = cmd.Wait() // it is no failure to be stopped
		close(p.ended)
	}()
	return p, nil
}

// shutdown stops the process politely, so that it stops its own; and after a while
// for good, and its own as well.
func (p *process) shutdown() {
	children, _ := childrenOf(p.cmd.Process.Pid)
	p.stop()
	<-p.ended
	if p.cmd.ProcessState.Exited() {
		return
	}
	for _, pid := range children {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have followed by itself
	}
}

// kill ends the process as kill -9 does, and returns the ids of its children, which
// live on.
func (p *process) kill() (orphans []int, err error) {
	orphans, err = childrenOf(p.cmd.Process.Pid)
	if err := errors.Join(err, p.cmd.Process.Kill()); err != nil {
		return nil, err
	}
	<-p.ended
	p.stop()
	return orphans, nil
}

// await waits until ready says so; the process must not end before.
func (p *process) await(ready func() bool) error {
	deadline := time.Now().Add(30 * time.Second)
	for !ready() {
		select {
		case <-p.ended:
			text, err := os.ReadFile(p.log)
			return errors.Join(fmt.Errorf("%s ended by itself:\n%s", filepath.Base(p.cmd.Path), text), err)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not ready after 30 s", filepath.Base(p.cmd.Path))
		}
	}
	return nil
}

// childrenOf returns the ids of the running children of a process, as the proc file
// system of Linux tells them.
func childrenOf(parent int) ([]int, error) {
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
		if len(fields) < 2 || fields[0] == "Z" || fields[1] != strconv.Itoa(parent) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(stat))); err == nil {
			children = append(children, pid)
		}
	}
	return children, nil
}
