# What the deployer of compose.yaml runs, once: three keys, three tables, one contract.
set -eu
FEDERATION=${FEDERATION:-/federation}
STATE=${STATE:-/state}
SETUP=${SETUP:-/setup}
SCRIPTS=${SCRIPTS:-/app/scripts}
RPC=${RPC:-http://172.28.0.10:8545}
export FL_NODE_PASSWORD_FILE="${FL_NODE_PASSWORD_FILE:-/run/secrets/password}"

if [ -e "$FEDERATION/federation.deployed.toml" ]; then
    echo "deployed already: $FEDERATION/federation.deployed.toml"
    exit 0
fi
python "$SETUP/deal.py" "$FEDERATION"
members=""
for site in a b c; do
    [ -e "$STATE/$site/key.json" ] || fl-node init --state "$STATE/$site" --site "hospital-$site" \
        --data "csv:/state/data.csv" --password-file "$FL_NODE_PASSWORD_FILE" > /dev/null
    mv "$FEDERATION/hospital-$site.csv" "$STATE/$site/data.csv"
    address=$(python -c "import json, sys; print('0x' + json.load(open(sys.argv[1]))['address'])" "$STATE/$site/key.json")
    members="$members --member $address:hospital-$site"
done
# shellcheck disable=SC2086  # one argument per word is wanted
python "$SCRIPTS/deploy_contract.py" --rpc "$RPC" --spec "$SETUP/federation.toml" --fund 1 $members \
    --out "$FEDERATION/federation.deployed.toml"
