// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// reading is what came of one of many reads.
type reading struct {
	status int
	body   []byte
	err    error
}

// readAtOnce reads a path of Vault many times at the same moment, through its HTTP
// interface: a hundred processes would take longer to start than Graph to answer.
func readAtOnce(ts *testscript.TestScript, args []string) error {
	if len(args) != 4 || args[2] != ">" {
		return errors.New("usage: read-at-once N PATH > FILE")
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || n < 1 {
		return errors.New("N is a positive number")
	}
	readings := make([]reading, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	client := &http.Client{Timeout: time.Minute}
	defer client.CloseIdleConnections()
	for i := range readings {
		wg.Go(func() {
			<-start
			readings[i] = read(client, ts.Getenv("VAULT_ADDR")+"/v1/"+args[1], ts.Getenv("VAULT_TOKEN"))
		})
	}
	close(start)
	wg.Wait()
	return summarise(ts, readings, args[3])
}
