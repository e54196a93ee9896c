"""Text to video with 30 million parameters, laid out for TPU v5p:2x2x1.

Check: sora compile --experiment dit_30m:p720 --topology v5p:2x2x1
       (720p, 36 rows x 75,776 tokens in 3 parts: 10.0 of 95 GiB a chip, 9.7 s predicted)
Run:   sora train --experiment dit_30m --data SET --stage dit --workdir RUN
"""

from experiments._transformers import layout

experiment = layout("30m", "p256", fsdp=4)
p480 = layout("30m", "p480", fsdp=4)
p720 = layout("30m", "p720", fsdp=4)
p1080 = layout("30m", "p1080", fsdp=2, context=2)
p720_on_2_slices = layout("30m", "p720", replica=2, fsdp=4)
