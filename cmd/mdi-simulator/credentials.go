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

// setupCredentials prints a line per credential: type, id, end, name in quotes.
func setupCredentials(flags *flag.FlagSet) steering {
	remove := flags.String("remove", "", "`id` of one to remove, as an administrator would")
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

func setupCertificate(flags *flag.FlagSet) steering {
	var wanted graphtest.CertificateRequest
	flags.StringVar(&wanted.CommonName, "common-name", "", "`name` in the certificate")
	flags.DurationVar(&wanted.Validity, "validity", 0, "`duration` from now, negative for one that has expired; 0 means a year")
	flags.BoolVar(&wanted.Unregistered, "unregistered", false, "do not register it with the application")
	return making(flags, "certificate and private key, PEM", func(ctx context.Context, sim *graphtest.Client) (string, error) {
		return sim.NewCertificate(ctx, wanted)
	})
}

func setupAssertion(flags *flag.FlagSet) steering {
	var wanted graphtest.AssertionRequest
	flags.StringVar(&wanted.Issuer, "issuer", "", "`issuer`; by default the one that is trusted")
	flags.StringVar(&wanted.Subject, "subject", "", "`subject`; by default the one that is trusted")
	flags.StringVar(&wanted.Audience, "audience", "", "`audience`; by default the one that is trusted")
	flags.DurationVar(&wanted.Lifetime, "lifetime", 0, "`duration` from now, negative for one that has expired; 0 means an hour")
	flags.BoolVar(&wanted.Forged, "forged", false, "sign with a key that nobody trusts")
	return making(flags, "assertion", func(ctx context.Context, sim *graphtest.Client) (string, error) {
		return sim.Assertion(ctx, wanted)
	})
}

// making is a steering that puts something secret into a file.
func making(flags *flag.FlagSet, what string, do func(context.Context, *graphtest.Client) (string, error)) steering {
	file := flags.String("out", "", "`file` for the "+what)
	return func(ctx context.Context, sim *graphtest.Client, t terminal, arguments []string) error {
		if err := none(arguments); err != nil {
			return err
		}
		if *file == "" {
			return usageError{errors.New("where to? Set -out")}
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

// replaceFile lets a reader, who may be a running plugin, find the old text or
// the new one, and nothing in between.
func replaceFile(file, text string) error {
	root, err := os.OpenRoot(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(writeFile(root, filepath.Base(file), []byte(text)), root.Close())
}
