#!/usr/bin/env bash
# Runs Headrace's image on an Amazon Linux host (2023 or 2): at the first boot, and again for an upgrade.
#
#   HEADRACE_IMAGE=123456789012.dkr.ecr.us-east-1.amazonaws.com/mlflow:latest bash run_container.sh
#
# It installs Docker and the ECR credential helper where they are missing, pulls the image, starts it beside the
# running server, and puts it in that server's place once it is healthy. If it never is, the old server stays, or
# comes back; the exit code is then 1. No secret passes through here: the server reads them from SSM by itself.
#
#   HEADRACE_IMAGE           the image's whole name; by default mlflow:latest in this account's ECR
#   HEADRACE_FIRST_BOOT      true: before that comes the image that an upgrade under way wants (IMAGE in SSM), or has put
#                            on this host meanwhile
#   HEADRACE_REGION          the AWS region; by default this instance's
#   HEADRACE_SSM_PREFIX      where the server finds DB_HOST, DB_USER, DB_PASS, ... in SSM (/mlflow)
#   HEADRACE_BUCKET          s3://NAME/, where SSM has no BUCKET
#   HEADRACE_PORT            the port of this host (5000)
#   HEADRACE_NAME            the container's name (mlflow-server)
#   HEADRACE_HEALTH_SECONDS  how long a server may take to become healthy (180)
#   HEADRACE_MIGRATE         true: upgrade the database where the image needs that (make a snapshot first)
#   HEADRACE_LOG_GROUP       a CloudWatch log group for the server's log; by default Docker keeps 5 files of 10 MB
#   HEADRACE_HOME            where this script keeps its files (/etc/headrace); variables for the server, NAME=VALUE
#                            a line, may be in server.env there
#   HEADRACE_DB_CA_URL       the certificates that the database's is checked against; by default those of RDS, or, where
#                            they can't be fetched, those that the image carries
set -euo pipefail

prefix=${HEADRACE_SSM_PREFIX:-/mlflow}
port=${HEADRACE_PORT:-5000}
name=${HEADRACE_NAME:-mlflow-server}
health_seconds=${HEADRACE_HEALTH_SECONDS:-180}
home=${HEADRACE_HOME:-/etc/headrace}
env_file=$home/server.env
image_file=$home/image # the name of what was put into service last
ca_file=$home/db-ca.pem
ca_inside=/etc/headrace/db-ca.pem
previous=$name-previous
candidate=$name-next
schema_out_of_date=3 # the server's exit code
swapping=

say() { echo "run_container: $*" >&2; }
fail() {
    say "$*"
    exit 1
}

main() {
    if [ "$(id -u)" -ne 0 ]; then
        exec sudo --preserve-env bash "$0" "$@"
    fi
    exec 9>/var/lock/run_container.lock
    flock --timeout 600 9 || fail "another run_container.sh is still at work on this host; try again when it has ended"
    find_names
    find_settings
    install_docker
    configure_registry
    say "pulling $image"
    docker pull --quiet "$image" >/dev/null || fail "can't pull $image: look at the name, and at the role's ECR rights"
    fetch_certificates
    if is_current; then
        wait_healthy "$name" "$port" || fail "$name runs $image, but is not healthy: docker logs $name"
        say "$name runs $image already; nothing to do"
        echo "$image" >"$image_file"
        return
    fi
    trap restore EXIT
    docker rm --force "$candidate" >/dev/null 2>&1 || true
    if exists "$name"; then
        try_candidate
    elif exists "$previous"; then
        swapping=yes # this host went down in the middle of a swap
    fi
    replace
    echo "$image" >"$image_file"
    clean_up
    say "MLflow is on port $port of this host, from $image"
}

# The region, the image and its registry.
find_names() {
    region=${HEADRACE_REGION:-$(instance_metadata placement/region)} ||
        fail "no region: set HEADRACE_REGION, since this host has no instance metadata"
    if [ -n "${HEADRACE_IMAGE:-}" ]; then
        image=$HEADRACE_IMAGE
    else
        local account
        account=$(aws sts get-caller-identity --region "$region" --output text --query Account) ||
            fail "no AWS account: set HEADRACE_IMAGE, or give this instance a role"
        image=$account.dkr.ecr.$region.amazonaws.com/mlflow:latest
    fi
    if [ "${HEADRACE_FIRST_BOOT:-}" = true ]; then follow_upgrades; fi
    registry=${image%%/*}
}

# A launch template's image may not be the one to start: while an upgrade migrates the database, only its image can serve,
# and one that ended a moment ago may have put its image on this host before the boot came so far. Where SSM says nothing
# (throttled, no network yet), the boot tries again.
follow_upgrades() {
    local wanted
    wanted=$(parameter IMAGE) || fail "SSM does not say which image an upgrade wants"
    if [ "$wanted" != None ]; then
        image=$wanted
    elif [ -s "$image_file" ]; then
        image=$(cat "$image_file")
    fi
}

# The revision of the server's settings in SSM (`headrace aws up --set`): another needs another container.
find_settings() {
    settings=
    if command -v aws >/dev/null; then
        settings=$(parameter SETTINGS) || fail "SSM does not say which settings the server has"
    fi
}

# One parameter of the server's in SSM, which says None where there is none.
parameter() {
    aws ssm get-parameters --region "$region" --names "$prefix/$1" --query 'Parameters[0].Value' --output text
}

# One value of the instance metadata service, version 2.
instance_metadata() {
    local token
    token=$(curl --silent --fail --max-time 5 --request PUT http://169.254.169.254/latest/api/token \
        --header 'X-aws-ec2-metadata-token-ttl-seconds: 60') || return 1
    curl --silent --fail --max-time 5 --header "X-aws-ec2-metadata-token: $token" \
        "http://169.254.169.254/latest/meta-data/$1"
}

install_docker() {
    if ! command -v docker >/dev/null || ! command -v docker-credential-ecr-login >/dev/null; then
        say "installing Docker and the ECR credential helper"
        if command -v dnf >/dev/null; then # Amazon Linux 2023
            dnf install --assumeyes --quiet docker amazon-ecr-credential-helper
        elif command -v amazon-linux-extras >/dev/null; then # Amazon Linux 2
            amazon-linux-extras install -y docker >/dev/null
            amazon-linux-extras enable docker >/dev/null
            yum install --assumeyes --quiet amazon-ecr-credential-helper
        else
            fail "this is no Amazon Linux: install docker and amazon-ecr-credential-helper, and run this again"
        fi
    fi
    systemctl enable --now docker.service
    if id ec2-user >/dev/null 2>&1; then usermod --append --groups docker ec2-user; fi
}

# The helper is asked by the registry's host name: a key with a repository or a tag in it never matches.
configure_registry() {
    local config="{\"credHelpers\": {\"public.ecr.aws\": \"ecr-login\", \"$registry\": \"ecr-login\"}}"
    export DOCKER_CONFIG=$home/docker
    mkdir -p "$DOCKER_CONFIG"
    echo "$config" >"$DOCKER_CONFIG/config.json"
    local theirs=/home/ec2-user/.docker
    if id ec2-user >/dev/null 2>&1 && [ ! -e "$theirs/config.json" ]; then
        mkdir -p "$theirs"
        echo "$config" >"$theirs/config.json"
        chown -R ec2-user:ec2-user "$theirs"
    fi
}

# With them, the server checks that the database is the one it means (verify-full); without, it only encrypts.
fetch_certificates() {
    local ca_url=${HEADRACE_DB_CA_URL:-$(authority)/global/global-bundle.pem}
    if [ -s "$ca_file" ]; then return; fi
    if curl --silent --show-error --fail --retry 3 --max-time 30 --output "$ca_file.part" "$ca_url"; then
        :
    elif take_certificates; then
        say "no certificates from $ca_url: those of the image stand in for them"
    else
        say "no certificates from $ca_url: the connection to the database is encrypted, but not verified"
        return
    fi
    chmod 644 "$ca_file.part"
    mv "$ca_file.part" "$ca_file"
}

# Databases of GovCloud and of China have certificates of other authorities, which the others' bundle lacks
# (https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.SSL.html, and on docs.amazonaws.cn).
authority() {
    case $region in
    us-gov-*) echo https://truststore.pki.us-gov-west-1.rds.amazonaws.com ;;
    cn-*) echo https://rds-truststore.s3.cn-north-1.amazonaws.com.cn ;;
    *) echo https://truststore.pki.rds.amazonaws.com ;;
    esac
}

# Those that the image carries, where it carries any and they are of this partition.
take_certificates() {
    local made
    case $region in us-gov-* | cn-*) return 1 ;; esac
    made=$(docker create "$image") || return 1
    docker cp "$made:/usr/local/share/headrace/rds.pem" "$ca_file.part" >/dev/null 2>&1 || true
    docker rm "$made" >/dev/null
    [ -s "$ca_file.part" ]
}

# create NAME PUBLISHED RESTART: a container of the image, not started.
create() {
    local options=(
        --name "$1" --publish "$2:5000" --restart "$3" --label "headrace.setup=$(setup)"
        --read-only --tmpfs /tmp:size=1g --cap-drop ALL --security-opt no-new-privileges
    )
    server_variables
    logging
    docker create "${options[@]}" "$image" >/dev/null
}

server_variables() { # adds to `options`
    options+=(--env "HEADRACE_SSM_PREFIX=$prefix" --env "AWS_DEFAULT_REGION=$region")
    if [ -n "${HEADRACE_BUCKET:-}" ]; then options+=(--env "BUCKET=$HEADRACE_BUCKET"); fi
    if [ -e "$env_file" ]; then options+=(--env-file "$env_file"); fi
    if [ -s "$ca_file" ]; then
        options+=(--volume "$ca_file:$ca_inside:ro" --env PGSSLMODE=verify-full --env "PGSSLROOTCERT=$ca_inside")
    else
        options+=(--env PGSSLMODE=require)
    fi
}

logging() { # adds to `options`
    if [ -n "${HEADRACE_LOG_GROUP:-}" ]; then
        options+=(--log-driver awslogs --log-opt "awslogs-group=$HEADRACE_LOG_GROUP" --log-opt "awslogs-region=$region")
        # where CloudWatch does not take them, lines are dropped beyond the buffer: the server must not wait
        options+=(--log-opt mode=non-blocking --log-opt max-buffer-size=16m)
    else
        options+=(--log-driver json-file --log-opt max-size=10m --log-opt max-file=5)
    fi
}

# What a container is made from: another setup means that it must be made anew.
setup() {
    {
        docker image inspect --format '{{.Id}}' "$image"
        echo "$region $prefix $port ${HEADRACE_BUCKET:-} ${HEADRACE_LOG_GROUP:-} non-blocking $settings"
        cat "$env_file" "$ca_file" 2>/dev/null || true
    } | sha256sum | cut -d ' ' -f 1
}

exists() { docker container inspect "$1" >/dev/null 2>&1; }

is_current() {
    local found
    found=$(docker container inspect --format '{{.State.Running}} {{index .Config.Labels "headrace.setup"}}' "$name" \
        2>/dev/null) || return 1
    [ "$found" = "true $(setup)" ]
}

# wait_healthy NAME PORT: until it answers /health. It has failed when it ends, or is started again, before that.
wait_healthy() {
    local deadline=$((SECONDS + health_seconds)) before now
    before=$(life "$1")
    until curl --silent --fail --max-time 5 --output /dev/null "http://127.0.0.1:$2/health"; do
        now=$(life "$1")
        if [ "$now" != "$before" ] || [ "${now%% *}" != true ]; then
            say "$1 ended before it was healthy"
            return 1
        fi
        if [ "$SECONDS" -ge "$deadline" ]; then
            say "$1 was not healthy within $health_seconds s"
            return 1
        fi
        sleep 0.3
    done
}

life() { docker container inspect --format '{{.State.Running}} {{.State.StartedAt}}' "$1"; }

# Start the new image beside the running server, on a port that only this host sees.
try_candidate() {
    say "trying $image beside the running server"
    create "$candidate" 127.0.0.1: no
    docker start "$candidate" >/dev/null
    local trial_port
    trial_port=$(docker port "$candidate" 5000/tcp | head -n 1 | sed 's/.*://') || true
    if [ -n "$trial_port" ] && wait_healthy "$candidate" "$trial_port"; then
        docker rm --force "$candidate" >/dev/null
        return
    fi
    local code
    code=$(docker container inspect --format '{{.State.ExitCode}}' "$candidate")
    show_log "$candidate"
    docker rm --force "$candidate" >/dev/null
    if [ "$code" = "$schema_out_of_date" ] && [ "${HEADRACE_MIGRATE:-}" = true ]; then
        migrate
    else
        fail "$image was not put into service; $name goes on as before"
    fi
}

# Only the migrations of the new image; nothing else may use the database meanwhile.
migrate() {
    say "upgrading the database"
    retire
    local options=(--rm)
    server_variables
    docker run "${options[@]}" "$image" db upgrade || fail "the database could not be upgraded"
}

# Stop the running server and keep it. It must not start at a reboot of the host.
retire() {
    if exists "$name"; then
        docker rm --force "$previous" >/dev/null 2>&1 || true
        swapping=yes
        docker update --restart no "$name" >/dev/null
        docker stop "$name" >/dev/null
        docker rename "$name" "$previous"
    fi
}

replace() {
    docker rm --force "$candidate" >/dev/null 2>&1 || true
    create "$candidate" "$port" always # before the other stops: the gap is shorter by as much
    retire
    docker rename "$candidate" "$name"
    docker start "$name" >/dev/null
    if ! wait_healthy "$name" "$port"; then
        show_log "$name"
        exit 1 # and `restore`
    fi
    swapping=
}

# At the end: if a swap was left half done, the old server takes its place again.
restore() {
    local code=$?
    trap - EXIT
    docker rm --force "$candidate" >/dev/null 2>&1 || true
    if [ -n "$swapping" ]; then
        say "putting the previous server back (where the database was upgraded, restore its snapshot first)"
        if exists "$previous"; then
            docker rm --force "$name" >/dev/null 2>&1 || true
            docker rename "$previous" "$name"
        fi
        docker update --restart always "$name" >/dev/null
        docker start "$name" >/dev/null
        if wait_healthy "$name" "$port"; then
            say "the previous server is back"
        else
            say "the previous server is not healthy either: docker logs $name"
        fi
    fi
    exit "$code"
}

show_log() {
    say "the last lines of its log:"
    docker logs --tail 30 "$1" >&2 || true
}

# Images that no container uses; the previous server's stays.
clean_up() {
    local repository=${image%@*} # by a digest
    if [ "$repository" = "$image" ]; then repository=${image%:*}; fi
    docker image ls --quiet "$repository" | sort --unique | while read -r old; do
        docker image rm "$old" >/dev/null 2>&1 || true
    done
}

main "$@"
