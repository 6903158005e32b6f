#!/bin/bash
# The rest of a host's first boot: what the server must know of its names, two metrics a minute to CloudWatch, and the
# container, until it runs. It stands in the launch template, after the variables of run_container.sh.

domain=${HEADRACE_DOMAIN:-}
deployment=${HEADRACE_SSM_PREFIX#/}
home=/etc/headrace
mkdir -p "$home"
# A worker a CPU, but not more than GiB of memory: an upgrade has two servers. A setting in SSM wins (`up --set workers=1`).
workers=$(awk -v cpus="$(nproc)" '/^MemTotal/ {gib = int($2 / 2^20 + 0.5); if (gib < 1) gib = 1
  print cpus < gib ? cpus : gib}' /proc/meminfo)
echo "MLFLOW_WORKERS=$workers" > "$home/server.env"
if [ -n "$domain" ]; then
  # The host rules of `mlflow server`: who comes through the load balancer names its domain, who comes through `connect`
  # this machine. What the balancer says of a client is believed, from its subnets alone. Its connections rest 300 s.
  cat >> "$home/server.env" <<END
MLFLOW_SERVER_ALLOWED_HOSTS=$domain,localhost,localhost:*,127.0.0.1,127.0.0.1:*
MLFLOW_SERVER_CORS_ALLOWED_ORIGINS=https://$domain
HEADRACE_TRUSTED_PROXIES=${HEADRACE_PROXIES:-}
HEADRACE_KEEP_ALIVE=360
END
fi

cat > /usr/local/bin/headrace-metrics <<END
#!/bin/bash
healthy=0
curl --fail --silent --max-time 5 --output /dev/null http://localhost:$HEADRACE_PORT/health && healthy=1
disk=\$(df --output=pcent / | tail -1 | tr -dc 0-9)
exec aws cloudwatch put-metric-data --region "$HEADRACE_REGION" --namespace "Headrace/$deployment" \\
  --metric-data "MetricName=Healthy,Value=\$healthy" "MetricName=DiskUsed,Value=\$disk,Unit=Percent"
END
cat > /etc/systemd/system/headrace-metrics.service <<END
[Unit]
Description=Headrace's health and the disk, to CloudWatch
[Service]
Type=oneshot
ExecStart=/usr/local/bin/headrace-metrics
END
cat > /etc/systemd/system/headrace-metrics.timer <<END
[Unit]
Description=Every minute
[Timer]
OnBootSec=1min
OnUnitActiveSec=1min
[Install]
WantedBy=timers.target
END
chmod 755 /usr/local/bin/run_container.sh /usr/local/bin/headrace-metrics
systemctl daemon-reload
systemctl enable --now headrace-metrics.timer

# The database's role may come after the host: `headrace aws up` makes it through this host. Which image it is, is asked
# anew each time, under run_container.sh's lock: an upgrade may put another on this host meanwhile.
export HEADRACE_FIRST_BOOT=true
until bash /usr/local/bin/run_container.sh; do
  echo "not in service yet; once more in 5 s"
  sleep 5
done

# The group waits for this word before it counts the host, or lets the one go whose place it takes (the template's hook).
# Where it does not wait for it, AWS calls that a ValidationError.
serves() {
  local host group said
  host=$(cat /var/lib/cloud/data/instance-id)
  group=$(aws autoscaling describe-auto-scaling-instances --region "$HEADRACE_REGION" --instance-ids "$host" \
    --query 'AutoScalingInstances[0].AutoScalingGroupName' --output text) || return 1
  said=$(aws autoscaling complete-lifecycle-action --region "$HEADRACE_REGION" --auto-scaling-group-name "$group" \
    --instance-id "$host" --lifecycle-hook-name serves --lifecycle-action-result CONTINUE 2>&1) && return
  echo "$said"
  case $said in *ValidationError*) return 0 ;; esac
  return 1
}
until serves; do sleep 5; done
