# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_nms_class_offset', tier='wide', verdict='FAIL', culprit_op=['add', 'mul', 'cast'],
 source_url='https://github.com/MultimediaTechLab/YOLO/pull/234',
 expect='boxes are shifted by class id times the largest coordinate')
class M(nn.Module):
    def forward(self, boxes, cls):
        shifted = boxes + (cls * 4096.0)[:, None]
        area = shifted[:, 2] - shifted[:, 0]
        return area * (shifted[:, 3] - shifted[:, 1])
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); xy = torch.rand(16, 2) * 600; wh = torch.rand(16, 2) * 60 + 4
    return (torch.cat([xy, xy + wh], 1), torch.arange(16).float())
