// A browser's WebSocket (Node has the same), told what to do by JSON lines, and telling what it sees by them.
// usage: node browser.mjs URL [SUBPROTOCOL...]
import { createInterface } from "node:readline";

const tell = (event) => process.stdout.write(JSON.stringify(event) + "\n");
const [url, ...protocols] = process.argv.slice(2);
const socket = new WebSocket(url, protocols);

socket.onopen = () => tell({ open: socket.protocol });
socket.onmessage = ({ data }) => tell({ message: data });
socket.onerror = () => tell({ error: true });
socket.onclose = ({ code, reason }) => {
  tell({ close: [code, reason] });
  process.exit();
};

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const { send, close } = JSON.parse(line);
    if (send !== undefined) socket.send(send);
    if (close !== undefined) socket.close(close);
  })
  .on("close", () => process.exit());
