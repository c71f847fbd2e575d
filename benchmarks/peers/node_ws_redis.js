'use strict';
// The usual way to scale WebSockets on Node.js: every node publishes each message to one Redis channel, gets
// every message of all nodes from there, and delivers those that are for its own clients.
// Speaks as much of Ring's protocol as the loads need. Argument: the URL of Redis.

const http = require('node:http');
const { createClient } = require('redis');
const { WebSocketServer, WebSocket } = require('ws');

const CHANNEL = 'messages';

async function main(redisUrl) {
  const publisher = createClient({ url: redisUrl });
  const subscriber = publisher.duplicate();
  for (const client of [publisher, subscriber]) {
    client.on('error', (error) => console.error(error.message));
    await client.connect();
  }

  const users = new Map(); // name -> WebSocket
  const rooms = new Map(); // name -> Set of WebSockets

  function received(user, socket, joined, frame) {
    switch (frame.type) {
      case 'send':
      case 'publish':
        frame.from = user;
        publisher.publish(CHANNEL, JSON.stringify(frame)).catch((error) => console.error(error.message));
        break;
      case 'join':
        if (!rooms.has(frame.room)) rooms.set(frame.room, new Set());
        rooms.get(frame.room).add(socket);
        joined.add(frame.room);
        socket.send(JSON.stringify({ type: 'ok', id: frame.id }));
        break;
    }
  }

  function deliver(frame) {
    if (frame.type === 'send') {
      const socket = users.get(frame.to);
      if (socket && socket.readyState === WebSocket.OPEN) {
        socket.send(JSON.stringify({ type: 'message', from: frame.from, id: frame.id, data: frame.data }));
      }
      return;
    }
    const members = rooms.get(frame.room);
    if (!members) return;
    const text = JSON.stringify({ type: 'room', room: frame.room, from: frame.from, id: frame.id, data: frame.data });
    for (const socket of members) {
      if (socket.readyState === WebSocket.OPEN) socket.send(text);
    }
  }

  await subscriber.subscribe(CHANNEL, (text) => deliver(JSON.parse(text)));

  const server = http.createServer();
  const sockets = new WebSocketServer({ server, perMessageDeflate: false });
  sockets.on('connection', (socket, request) => {
    const user = new URL(request.url, 'http://localhost').searchParams.get('user');
    const joined = new Set();
    users.set(user, socket);
    socket.on('message', (data) => received(user, socket, joined, JSON.parse(data)));
    socket.on('error', () => {});
    socket.on('close', () => {
      if (users.get(user) === socket) users.delete(user);
      for (const room of joined) rooms.get(room).delete(socket);
    });
    socket.send(JSON.stringify({ type: 'welcome', user }));
  });
  server.listen(0, '127.0.0.1', () => {
    const edge = `127.0.0.1:${server.address().port}`;
    console.log(JSON.stringify({ event: 'ready', part: 'node', edge, pid: process.pid }));
  });
}

main(process.argv[2]).catch((error) => {
  console.error(error);
  process.exit(1);
});
