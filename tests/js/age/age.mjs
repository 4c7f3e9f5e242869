// Opens and makes age files with an implementation that shares no code with ours.
//   node age.mjs decrypt IDENTITY < file > plaintext
//   node age.mjs encrypt RECIPIENT... < plaintext > file
import { readFileSync, writeSync } from "node:fs";
import { Decrypter, Encrypter } from "age-encryption";

const [action, ...keys] = process.argv.slice(2);
const input = new Uint8Array(readFileSync(0));
let output;
if (action === "decrypt") {
  const decrypter = new Decrypter();
  keys.forEach((key) => decrypter.addIdentity(key));
  output = await decrypter.decrypt(input);
} else {
  const encrypter = new Encrypter();
  keys.forEach((key) => encrypter.addRecipient(key));
  output = await encrypter.encrypt(input);
}
for (let at = 0; at < output.length; ) at += writeSync(1, output, at);
