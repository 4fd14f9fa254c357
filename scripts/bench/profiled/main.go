// SPDX-License-Identifier: MPL-2.0

// Command profiled is the engine with a profiler, which the plugin that ships does not
// have. It listens on the loopback interface, at an address that it writes to the folder
// that is its only argument, in a file named after its process id. A request to /start
// starts a profile of the processor's time; one to /stop writes that, and what was
// allocated and waited for since the start of the process, to files with a prefix.
package main

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/plugin"

	"example.com/vault-plugin-secrets-mdi/backend"
)

func main() {
	err := serveProfiles(os.Args[len(os.Args)-1])
	if err == nil {
		err = plugin.ServeMultiplex(&plugin.ServeOpts{BackendFactoryFunc: backend.Factory})
	}
	if err != nil {
		hclog.New(&hclog.LoggerOptions{Name: "profiled"}).Error("plugin shutting down", "error", err)
		os.Exit(1)
	}
}

// serveProfiles listens in the background, for as long as the process lives.
func serveProfiles(dir string) error {
	runtime.SetMutexProfileFraction(10)
	runtime.SetBlockProfileRate(10_000)         // one sample for every 10 µs of waiting
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is never interrupted
	if err != nil {
		return err
	}
	var cpu bytes.Buffer // requests come one after the other
	http.HandleFunc("/start", func(w http.ResponseWriter, _ *http.Request) {
		cpu.Reset()
		fail(w, pprof.StartCPUProfile(&cpu))
	})
	http.HandleFunc("/stop", func(w http.ResponseWriter, r *http.Request) {
		pprof.StopCPUProfile()
		fail(w, write(r.FormValue("prefix"), cpu.Bytes()))
	})
	go func() { _ = http.Serve(ln, nil) }()                                                               //nolint:gosec // a profile takes as long as it was asked for
	return os.WriteFile(filepath.Join(dir, strconv.Itoa(os.Getpid())), []byte(ln.Addr().String()), 0o600) //nolint:gosec // the folder is the benchmark's
}

// write writes the profiles to files, whose names the benchmark begins.
func write(prefix string, cpu []byte) error {
	failed := []error{os.MkdirAll(filepath.Dir(prefix), 0o750), os.WriteFile(prefix+".cpu.pprof", cpu, 0o600)} //nolint:gosec // as above
	for _, kind := range []string{"allocs", "mutex", "block"} {
		var profile bytes.Buffer
		failed = append(failed, pprof.Lookup(kind).WriteTo(&profile, 0), os.WriteFile(prefix+"."+kind+".pprof", profile.Bytes(), 0o600)) //nolint:gosec // as above
	}
	return errors.Join(failed...)
}

func fail(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
