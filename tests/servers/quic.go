// SPDX-License-Identifier: LGPL-2.1-or-later
//
// quic serve: an echo server by quic-go on the socket that it finds as descriptor 3. "known" on its standard input is
// answered with the number of its sessions.
// quic dial ADDRESS:PORT: sessions with it. "dial N" begins N more, "round" sends the next number on each and wants it
// back from the server that it began with; both are answered with the number of sessions lost so far, of all.
package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lucas-clemente/quic-go"
)

const (
	protocol  = "echo"
	perAnswer = 8 * time.Second
	handshake = 20 * time.Second
)

var config = &quic.Config{MaxIdleTimeout: 5 * time.Minute, HandshakeIdleTimeout: handshake}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "quic:", err)
		os.Exit(1)
	}
}

func certificate() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	made, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(err)
	return tls.Certificate{Certificate: [][]byte{made}, PrivateKey: key}
}

func serve() {
	socket, err := net.FilePacketConn(os.NewFile(3, "socket"))
	must(err)
	listener, err := quic.Listen(socket, &tls.Config{Certificates: []tls.Certificate{certificate()},
		NextProtos: []string{protocol}}, config)
	must(err)
	var known int64
	go func() {
		for {
			session, err := listener.Accept(context.Background())
			must(err)
			atomic.AddInt64(&known, 1)
			go func() {
				stream, err := session.AcceptStream(context.Background())
				if err == nil {
					_, _ = io.Copy(stream, stream)
				}
			}()
		}
	}()
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(atomic.LoadInt64(&known))
	}
}

type session struct {
	stream quic.Stream
	number uint32
	lost   bool
}

func (s *session) round() error {
	s.number++
	out, in := []byte(fmt.Sprintf("%08x", s.number)), make([]byte, 8)
	_ = s.stream.SetDeadline(time.Now().Add(perAnswer))
	if _, err := s.stream.Write(out); err != nil {
		return err
	}
	if _, err := io.ReadFull(s.stream, in); err != nil {
		return err
	}
	if string(in) != string(out) {
		return fmt.Errorf("sent %s, came %s", out, in)
	}
	return nil
}

func begin(address string) (*session, error) {
	ctx, cancel := context.WithTimeout(context.Background(), handshake)
	defer cancel()
	connection, err := quic.DialAddrContext(ctx, address, &tls.Config{InsecureSkipVerify: true,
		NextProtos: []string{protocol}}, config)
	if err != nil {
		return nil, err
	}
	stream, err := connection.OpenStreamSync(ctx)
	return &session{stream: stream}, err
}

// Each of them at the same time, but never more than some: two processors have to keep up.
func all(count int, do func(int)) {
	var group sync.WaitGroup
	places := make(chan bool, 100)
	for i := 0; i < count; i++ {
		group.Add(1)
		places <- true
		go func(i int) {
			defer group.Done()
			do(i)
			<-places
		}(i)
	}
	group.Wait()
}

func dial(address string) {
	var sessions []*session
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		more := 0
		if _, err := fmt.Sscanf(lines.Text(), "dial %d", &more); err == nil {
			made := make([]*session, more)
			all(more, func(i int) {
				one, err := begin(address)
				if err != nil {
					fmt.Fprintln(os.Stderr, "quic: dial:", err)
					one = &session{lost: true}
				}
				made[i] = one
			})
			sessions = append(sessions, made...)
		} else {
			all(len(sessions), func(i int) {
				if one := sessions[i]; !one.lost {
					if err := one.round(); err != nil {
						fmt.Fprintln(os.Stderr, "quic: round:", err)
						one.lost = true
					}
				}
			})
		}
		lost := 0
		for _, one := range sessions {
			if one.lost {
				lost++
			}
		}
		fmt.Println(lost)
	}
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "dial" {
		dial(os.Args[2])
	} else {
		serve()
	}
}
