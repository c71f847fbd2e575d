// The example's chat, told what to say by JSON lines, and telling what it sees by them.
// usage: node blog_chat.mjs URL...
import { createInterface } from "node:readline";
import { Chat } from "../../docs/examples/blog_chat/chat.mjs";

const chat = new Chat(process.argv.slice(2), (event) => process.stdout.write(JSON.stringify(event) + "\n"));

createInterface({ input: process.stdin })
  .on("line", (line) => chat.say(JSON.parse(line)))
  .on("close", () => chat.leave());
