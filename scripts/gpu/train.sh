#!/usr/bin/env bash
# Train the model to hand out on a lent GPU: DLA-34 at 736 px on drawn people, as far as the time goes. Run it again to go on.
#   scripts/gpu/train.sh RUN [MINUTES=25]      in the checkout, with PYTHON (default python3) having the extra "train"
set -euo pipefail
run=${1:?usage: train.sh RUN [MINUTES]}; minutes=${2:-25}
python=${PYTHON:-python3}; images=${IMAGES:-20000}; iterations=${ITERATIONS:-12000}; batch=${BATCH:-32}
command=("$python" -m mdpose_edge.cli)

# Drawing is work for the CPU (one core draws 62 pictures of 320 px a second). Seed 7 is of no other set: not of the demo, nor
# of scripts/gpu/prepare.py, whose pictures measure the result.
[ -d "$run/data" ] || "${command[@]}" synth "$run/data" --images "$images" --val-images 100 --size 736 --people 1-8 --seed 7 \
  --workers "$(nproc)"

resume=(); [ -f "$run/model/last.safetensors" ] && resume=(--resume)
# A thirtieth of the steps of the paper, so AdamW and a cosine over all of them; killed, it loses 200 steps at most.
status=0
timeout --signal=INT "${minutes}m" "${command[@]}" train configs/dla34_736.yaml --data "$run/data" --out "$run/model" \
  --set "schedule.iterations=$iterations" --set schedule.kind=cosine --set schedule.warmup=500 \
  --set 'schedule.milestones=[]' --set "batch_size=$batch" --set pretrained=false --set optimizer.name=adamw \
  --set optimizer.lr=4.0e-4 --set optimizer.weight_decay=1.0e-2 --set checkpoint_every=200 --set workers=8 \
  "${resume[@]}" || status=$?
[ "$status" = 124 ] && { echo "time is up: run it again to go on"; exit 0; }
exit "$status"
