// SPDX-License-Identifier: LGPL-2.1-or-later

// serve.mjs SERVICE: Node cannot send descriptors over a UNIX socket, but a child inherits them, so sockbrokerctl(1)
// registers the listener as if systemd had passed it. In production: a .socket unit, or sockbroker-run(1) in front.
import {spawnSync} from 'node:child_process';
import {createServer} from 'node:net';

const service = process.argv[2] ?? 'web';
const server = createServer(client => client.on('error', () => {}).end(`${service} in Node\n`));

server.listen(0, '127.0.0.1', () => {
        const command = 'LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES="$0" exec sockbrokerctl register "$0"';
        const done = spawnSync('/bin/sh', ['-c', command, service],
                               {stdio: ['ignore', 'ignore', 'inherit', server._handle.fd]});
        if (done.status !== 0)
                process.exit(1);
        console.log('ready');
});
