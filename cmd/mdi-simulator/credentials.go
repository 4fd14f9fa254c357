// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"time"

	"example.com/vault-plugin-secrets-mdi/backend/graphtest"
)

// setupCredentials prints a line per credential: type, id, end and quoted name.
func setupCredentials(flags *flag.FlagSet) control {
	remove := flags.String("remove", "", "`id` of a credential to remove, as an administrator would")
	return func(ctx context.Context, sim *graphtest.Client, t terminal, arguments []string) error {
		if err := none(arguments); err != nil {
			return err
		}
		if *remove != "" {
			if err := sim.RemoveInPortal(ctx, *remove); err != nil {
				return err
			}
		}
		all, err := sim.Credentials(ctx)
		for _, c := range all {
			say(t.out, "%s %s %s %q\n", c.Type, c.KeyID, c.End.UTC().Format(time.RFC3339), c.DisplayName)
		}
		return err
	}
}

func setupCertificate(flags *flag.FlagSet) control {
	var r graphtest.CertificateRequest
	flags.StringVar(&r.CommonName, "common-name", "", "`name` in the certificate")
	flags.DurationVar(&r.Validity, "validity", 0, "`duration` from now, negative for an expired one; 0 means a year")
	flags.BoolVar(&r.Unregistered, "unregistered", false, "do not register it with the application")
	return making(flags, "certificate and private key, PEM", func(ctx context.Context, sim *graphtest.Client) (string, error) {
		return sim.NewCertificate(ctx, r)
	})
}

func setupAssertion(flags *flag.FlagSet) control {
	var r graphtest.AssertionRequest
	flags.StringVar(&r.Issuer, "issuer", "", "`issuer`; by default the trusted one")
	flags.StringVar(&r.Subject, "subject", "", "`subject`; by default the trusted one")
	flags.StringVar(&r.Audience, "audience", "", "`audience`; by default the trusted one")
	flags.DurationVar(&r.Lifetime, "lifetime", 0, "`duration` from now, negative for an expired one; 0 means an hour")
	flags.BoolVar(&r.Forged, "forged", false, "sign with a key that the application does not trust")
	return making(flags, "assertion", func(ctx context.Context, sim *graphtest.Client) (string, error) {
		return sim.Assertion(ctx, r)
	})
}

// making returns a control that writes a secret to a file.
func making(flags *flag.FlagSet, what string, do func(context.Context, *graphtest.Client) (string, error)) control {
	file := flags.String("out", "", "`file` for the "+what)
	return func(ctx context.Context, sim *graphtest.Client, t terminal, arguments []string) error {
		if err := none(arguments); err != nil {
			return err
		}
		if *file == "" {
			return usageError{errors.New("no output file: set -out")}
		}
		text, err := do(ctx, sim)
		if err != nil {
			return err
		}
		if err := replaceFile(*file, text); err != nil {
			return err
		}
		say(t.out, "written\n")
		return nil
	}
}

// replaceFile replaces a file in one step, so that a reader, such as a running plugin,
// finds either the old text or the new one.
func replaceFile(file, text string) error {
	root, err := os.OpenRoot(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(writeFile(root, filepath.Base(file), []byte(text)), root.Close())
}
