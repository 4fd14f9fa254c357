// SPDX-License-Identifier: MPL-2.0

// Command profiled is the engine with a way to look into it, which the plugin that
// ships does not have. It serves Go's profiles on the loopback interface, at an
// address that it writes to a file of its process's id in the folder that is its
// only argument; and one of the processor's time between two requests, to /cpu/start
// and /cpu/stop.
package main

import (
	"bytes"
	"net"
	"net/http"
	_ "net/http/pprof" //nolint:gosec // what this program is for; it never ships
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
	var recorded bytes.Buffer // requests come one after the other
	http.HandleFunc("/cpu/start", func(w http.ResponseWriter, _ *http.Request) {
		recorded.Reset()
		if err := pprof.StartCPUProfile(&recorded); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	})
	http.HandleFunc("/cpu/stop", func(w http.ResponseWriter, _ *http.Request) {
		pprof.StopCPUProfile()
		_, _ = w.Write(recorded.Bytes()) // who asked has gone
	})
	go func() { _ = http.Serve(ln, nil) }()                                                               //nolint:gosec // a profile takes as long as it was asked for
	return os.WriteFile(filepath.Join(dir, strconv.Itoa(os.Getpid())), []byte(ln.Addr().String()), 0o600) //nolint:gosec // the folder is the benchmark's
}
