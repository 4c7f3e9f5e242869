// Hardhat's node as a development chain: the accounts and the chain id of Anvil. Contracts are compiled by
// scripts/build_artifact.py and forge, not by Hardhat.
const blockTime = Number(process.env.FL_NODE_BLOCK_TIME_S || 0);
const scratch = process.env.FL_NODE_SCRATCH || "./out/hardhat";

module.exports = {
  solidity: "0.8.30",
  paths: { sources: "./out/hardhat-sources", cache: `${scratch}/cache`, artifacts: `${scratch}/artifacts` },
  networks: {
    hardhat: {
      chainId: 31337,
      hardfork: "shanghai",
      mining: { auto: blockTime === 0, interval: blockTime * 1000 },
      accounts: { mnemonic: "test test test test test test test test test test test junk" },
    },
  },
};
