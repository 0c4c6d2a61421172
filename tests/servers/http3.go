// SPDX-License-Identifier: LGPL-2.1-or-later
//
// http3 ADDRESS NAME: GET / of https://NAME/ by HTTP/3 at that address, and what it answers. Any certificate will do.
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/lucas-clemente/quic-go"
	"github.com/lucas-clemente/quic-go/http3"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "http3:", err)
		os.Exit(1)
	}
}

func main() {
	to := net.JoinHostPort(os.Args[1], "443")
	client := http.Client{Timeout: 10 * time.Second, Transport: &http3.RoundTripper{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: os.Args[2]},
		Dial: func(ctx context.Context, _ string, settings *tls.Config,
			config *quic.Config) (quic.EarlyConnection, error) {
			return quic.DialAddrEarlyContext(ctx, to, settings, config)
		}}}
	answer, err := client.Get("https://" + os.Args[2] + "/")
	must(err)
	text, err := io.ReadAll(answer.Body)
	must(err)
	fmt.Println(string(text))
}
