// SPDX-License-Identifier: MPL-2.0

// Command tenantcheck asks a test tenant about everything that the engine assumes of
// Microsoft and Microsoft does not document: the form of Graph's answers, how long a read
// of the key can lag behind its regeneration, how Graph signs a refusal. It prints each
// assumption as confirmed, refuted or not told, with what it measured, as a report without
// secrets that fits into an issue.
//
//	tenantcheck -tenant-id … -client-id … -secret-file secret.txt
//
// It regenerates the tenant's key three times, and asks before it does so.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"example.com/vault-plugin-secrets-mdi/backend/field"
	"example.com/vault-plugin-secrets-mdi/backend/graph"
	"example.com/vault-plugin-secrets-mdi/scripts/internal/command"
)

func main() {
	command.Main(func(ctx context.Context, arguments []string) error {
		return run(ctx, arguments, terminal{in: os.Stdin, out: os.Stdout, notes: os.Stderr}, realClock{})
	})
}

// terminal is where a person answers, the report goes, and progress is shown.
type terminal struct {
	in         io.Reader
	out, notes io.Writer
}

func (t terminal) say(format string, values ...any) {
	_, _ = fmt.Fprintf(t.notes, format+"\n", values...)
}

// clock is the time, which a test replaces.
type clock interface {
	now() time.Time
	sleep(ctx context.Context, d time.Duration) error
}

type realClock struct{}

func (realClock) now() time.Time { return time.Now() }

func (realClock) sleep(ctx context.Context, d time.Duration) error { return command.Pause(ctx, d) }

// options are the flags. Secrets are in files, so that no command line shows them.
type options struct {
	tenantID, clientID, secretFile  string
	environment                     string
	graphEndpoint, authorityHost    string
	caFile                          string
	otherClientID, otherSecretFile  string
	secret, otherSecret, authority  string // read from the files
	graphRoot, audience, caContents string
	cloud                           graph.Cloud
}

func parse(arguments []string, notes io.Writer) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("tenantcheck", flag.ContinueOnError)
	flags.SetOutput(notes)
	flags.StringVar(&o.tenantID, "tenant-id", "", "`GUID` of the test tenant")
	flags.StringVar(&o.clientID, "client-id", "", "`GUID` of an app with the permission "+graph.Permission)
	flags.StringVar(&o.secretFile, "secret-file", "", "`file` with a client secret of that app")
	flags.StringVar(&o.otherClientID, "other-client-id", "", "`GUID` of an app of the tenant without any permission, to see how Graph refuses it; optional")
	flags.StringVar(&o.otherSecretFile, "other-secret-file", "", "`file` with a client secret of the other app")
	flags.StringVar(&o.environment, "environment", graph.AzurePublicCloud, "`cloud` of the tenant: "+strings.Join(graph.CloudNames, ", "))
	flags.StringVar(&o.graphEndpoint, "graph-endpoint", "", "`URL` instead of the cloud's Graph")
	flags.StringVar(&o.authorityHost, "authority-host", "", "`URL` instead of the cloud's sign-in")
	flags.StringVar(&o.caFile, "ca-certificate-file", "", "`file` with certificates to trust in addition, of a TLS-inspecting proxy")
	if err := flags.Parse(arguments); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 || o.tenantID == "" || o.clientID == "" || o.secretFile == "" || (o.otherClientID == "") != (o.otherSecretFile == "") {
		flags.Usage()
		return nil, errors.New("-tenant-id, -client-id and -secret-file are needed, and of the other app both or none")
	}
	return o, o.load()
}

// load reads the files and finds the cloud's addresses.
func (o *options) load() (err error) {
	if o.cloud, err = graph.CloudNamed(o.environment); err != nil {
		return err
	}
	o.graphRoot, o.authority, o.audience = o.cloud.GraphRoot, o.cloud.AuthorityHost, o.cloud.GraphRoot
	for _, endpoint := range []struct{ given, root *string }{{&o.graphEndpoint, &o.graphRoot}, {&o.authorityHost, &o.authority}} {
		if *endpoint.given, err = graph.ParseEndpoint(*endpoint.given); err != nil {
			return err
		}
		if *endpoint.given != "" {
			*endpoint.root = *endpoint.given
		}
	}
	asIs := func(text string) (string, error) { return text, nil } // comments between certificates need not be ASCII
	for _, f := range []struct {
		flag, file string
		into       *string
		clean      func(string) (string, error)
	}{
		{"-secret-file", o.secretFile, &o.secret, field.Line},
		{"-other-secret-file", o.otherSecretFile, &o.otherSecret, field.Line},
		{"-ca-certificate-file", o.caFile, &o.caContents, asIs},
	} {
		if f.file == "" {
			continue
		}
		contents, err := os.ReadFile(f.file)
		if err != nil {
			return err
		}
		if *f.into, err = f.clean(string(contents)); err != nil {
			return fmt.Errorf("%s %w", f.flag, err)
		}
	}
	return nil
}

// errRefuted makes the exit code that of a failure, though the report is complete.
var errRefuted = errors.New("the tenant refutes an assumption: please file the report as a bug")

func run(ctx context.Context, arguments []string, t terminal, c clock) error {
	o, err := parse(arguments, t.notes)
	if err != nil {
		return err
	}
	p, err := newProber(o, c)
	if err != nil {
		return err
	}
	if err := ask(o, t); err != nil {
		return err
	}
	f, err := measure(ctx, p, t)
	if err != nil {
		return err
	}
	found := judge(f)
	_, _ = io.WriteString(t.out, report(f, found))
	for _, finding := range found {
		if finding.verdict == refuted {
			return errRefuted
		}
	}
	return nil
}

// ask says what the check does to the tenant, and goes on only if a person names it.
func ask(o *options, t terminal) error {
	t.say(`This check is for a TEST tenant. In tenant %s (%s) it
  - regenerates the sensor deployment access key three times: sensors that are being
    installed with an earlier key fail, installed ones are not touched;
  - reads the key about a hundred times, and the tenant's audit log shows each call;
  - takes about eight minutes.
A mount of the engine for this tenant takes the keys for regenerated in the portal.
The report has neither a secret nor the ids of the tenant and the app in it.
To go on, type the tenant's id:`, o.tenantID, o.environment)
	line, err := bufio.NewReader(t.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !strings.EqualFold(strings.TrimSpace(line), o.tenantID) {
		return errors.New("that is not the tenant's id: nothing has been sent")
	}
	return nil
}
