// SPDX-License-Identifier: LGPL-2.1-or-later

// serve.go SERVICE: registers a listener by the plain protocol, docs/protocol.md. From Go 1.24 on listeners are MPTCP
// ones, which the kernel cannot dispatch to, unless a program says otherwise: as here, from Go 1.21 on, or by
// ListenConfig.SetMultipathTCP(false).

//go:debug multipathtcp=0
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
)

func register(service string, listener *net.TCPListener) error {
	control := net.UnixAddr{Name: "/run/sockbroker/control", Net: "unixpacket"}
	broker, err := net.DialUnix("unixpacket", nil, &control)
	if err != nil {
		return err
	}
	defer broker.Close()
	file, err := listener.File()
	if err != nil {
		return err
	}
	defer file.Close() // a duplicate
	request := "FDSTORE=1\nFDNAME=" + service + "\n"
	if _, _, err = broker.WriteMsgUnix([]byte(request), syscall.UnixRights(int(file.Fd())), nil); err != nil {
		return err
	}
	answer := make([]byte, 65536)
	n, err := broker.Read(answer)
	if err != nil {
		return err
	}
	if said := string(answer[:n]); !strings.HasPrefix(said, "RESULT=ok\n") {
		return fmt.Errorf("%s: %s", service, said)
	}
	return nil
}

func main() {
	service := "web"
	if len(os.Args) > 1 {
		service = os.Args[1]
	}
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err == nil {
		err = register(service, listener.(*net.TCPListener))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready")
	for {
		if client, err := listener.Accept(); err == nil {
			fmt.Fprintf(client, "%s in Go\n", service)
			client.Close()
		}
	}
}
