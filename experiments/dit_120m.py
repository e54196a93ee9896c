"""Text to video with 120 million parameters, laid out for TPU v5p:2x2x4.

Check: sora compile --experiment dit_120m:p720 --topology v5p:2x2x4
       (720p, 144 rows x 75,776 tokens in 3 parts: 19.4 of 95 GiB a chip, 18 s predicted)
Run:   sora train --experiment dit_120m --data SET --stage dit --workdir RUN
"""

from experiments._transformers import layout

experiment = layout("120m", "p256", fsdp=16)
p480 = layout("120m", "p480", fsdp=16)
p720 = layout("120m", "p720", fsdp=16)
p1080 = layout("120m", "p1080", fsdp=4, context=4)
